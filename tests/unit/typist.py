#!/usr/bin/python3 -B
"""usage: typist.py TEXT... -- COMMAND [ARGUMENT...]

Runs COMMAND on a terminal of its own and types a line of TEXT at each prompt, once the
echo is off. Prints what the terminal shows;
the exit status is the command's."""

import os
import pty
import select
import sys
import termios
import time

LIMIT_S = 120


def echoes(terminal):
    return termios.tcgetattr(terminal)[3] & termios.ECHO


def main():
    split = sys.argv.index("--")
    lines, command = sys.argv[1:split], sys.argv[split + 1 :]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    shown = b""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if lines and shown.endswith(b": ") and not echoes(terminal):
            os.write(terminal, lines.pop(0).encode() + b"\n")
            shown += b"\n"
        if not select.select([terminal], [], [], 0.02)[0]:
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the command has ended
            break
        if not part:
            break
        shown += part
    else:
        os.kill(pid, 9)
    sys.stdout.buffer.write(shown.replace(b"\r\n", b"\n"))
    _, status = os.waitpid(pid, 0)
    sys.exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


if __name__ == "__main__":
    main()
