"""One run of a command under strace, which watches or strikes its main process or a worker."""

import contextlib
import os
import subprocess
import time

from faultbench import ENVIRONMENT, HANG_S, Broken, Run, check, flocked

FORKING = {"clone", "clone3", "fork", "vfork"}


def children_of(pid):
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    return []


def has_open(pid, path):
    with contextlib.suppress(OSError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{number}") == str(path):
                    return True
    return False


def asks_tpm(pid):
    """A worker that talks to the TPM reads headers, too, but waits for no lock."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", encoding="utf-8") as file:
        return "/tpm2.so" in file.read()
    return False


def start(command):
    return subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )


def finish(process):
    try:
        out, err = process.communicate(timeout=HANG_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Broken(f"hangs: not finished after {HANG_S} seconds") from None
    return Run(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def run_main(command, log, *options):
    """Under strace, the started process only."""
    return finish(start(["strace", "-qq", "-s", "0", "-o", log, *options, *command]))


def waiting_workers(process, gates):
    """The worker that waits at each gate; None when the command ended before that."""
    deadline = time.monotonic() + HANG_S
    while process.poll() is None:
        found = [pid for pid in children_of(process.pid) if any(has_open(pid, gate) for gate in gates)]
        found = [pid for pid in found if not asks_tpm(pid)]
        if len(found) == len(gates):
            return found
        check(time.monotonic() < deadline, "no worker came to the disk's lock")
        time.sleep(0.002)
    return None


def attach(pids, log, *options):
    command = ["strace", "-f", "-s", "0", "-o", log, *options]
    for pid in pids:
        command += ["-p", pid]
    tracer = start(command)
    for _ in pids:
        line = tracer.stderr.readline().decode()
        if "attached" not in line:
            tracer.kill()
            raise RuntimeError(f"strace: {line}{tracer.communicate()[1].decode()}")
    return tracer


def run_idle_worker(command, log, *options, fork=1):
    """A worker that waits for no lock, the one of the FORKth fork: strace holds the main process
    behind each for a while, before it hands a job out, and the idle worker is attached meanwhile
    (half a second was too short for that once, on a busy machine)."""
    held = ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={','.join(sorted(FORKING))}"]
    held += ["-e", f"inject={','.join(sorted(FORKING))}:delay_exit=1000ms:when=1..{fork}"]
    process = start([*held, *command])
    tracer = None
    workers = []
    deadline = time.monotonic() + HANG_S
    while process.poll() is None and not tracer and time.monotonic() < deadline:
        for main in children_of(process.pid):
            workers += [pid for pid in children_of(main) if pid not in workers]
        if len(workers) >= fork:
            tracer = attach(workers[fork - 1 : fork], log, *options)
        time.sleep(0.002)
    try:
        return finish(process)
    finally:
        if tracer:
            tracer.communicate(timeout=HANG_S)


def run_worker(command, gates, log, *options, main_too=False, fork=1):
    """Untraced but for its workers; with MAIN_TOO also the main process from there on."""
    if not gates:
        return run_idle_worker(command, log, *options, fork=fork)
    tracer = None
    with flocked(gates):
        process = start(command)
        try:
            workers = waiting_workers(process, gates)
            if workers:
                tracer = attach(workers + [process.pid] * main_too, log, *options)
        except BaseException:
            process.kill()
            process.communicate()
            raise
    try:
        return finish(process)
    finally:
        if tracer:
            tracer.communicate(timeout=HANG_S)
