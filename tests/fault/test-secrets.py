#!/usr/bin/python3 -B
"""No secret of a keystore is in files, output, arguments, environments or on the wire, and no KEK,
content key or credential outside of locked memory: a command is held at calls that change something,
looked at, and goes on or is killed."""

import array
import base64
import contextlib
import os
import re
import signal
import socket
import threading
import time

from faultbench import HANG_S, check, main, remove
from finder import Finder
from keystoring import directory, token_of, unwrap
from migrating import IntoTpm, OutOfTpm
from rotating import every, send_all, wait_stopped
from served import IntoKmip, KmipIntoVault, MoveToVault, OutOfVault
from sweep import changing
from traced import children_of, finish, start

PAGE = os.sysconf("SC_PAGE_SIZE")
PRESENT, FRAME = 1 << 63, (1 << 55) - 1  # of an entry in /proc/PID/pagemap
MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+ *(.*)$")
MEMORY = "memory that is not locked"
# Where a secret may lie: what the administrator gave, and the keys that files hold.
KEPT = re.compile(r"/keys/|/vault/secret-id$|/kmip/client\.key$|/\.?\d+\.kek(\.qs-tmp)?$")


def family(pid):
    """The command that strace has started, and all below it."""
    found = children_of(pid)
    for one in found:
        found += children_of(one)
    return found


def mappings(pid):
    """Start, end, rights and flags of what a process has mapped; nothing when it has ended."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps", encoding="utf-8") as file:
        place = None
        for line in file:
            if found := MAPPING.match(line):
                place = int(found[1], 16), int(found[2], 16), found[3], found[4]
            elif line.startswith("VmFlags:"):
                yield *place, line.split()[1:]


def writable(pid, locked):
    """Start and end of what is (not) locked."""
    for begin, end, rights, name, flags in mappings(pid):
        if "w" in rights and not name.startswith("[v") and ("lo" in flags) == locked:
            yield begin, end


def frames(pid, begin, end):
    """The page frame of each page; 0: not there, or swapped out."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/pagemap", "rb", buffering=0) as file:
        file.seek(begin // PAGE * 8)
        entries = array.array("Q", file.read((end - begin) // PAGE * 8))
        return [entry & FRAME if entry & PRESENT else 0 for entry in entries]
    return []


def content(pid, begin, end):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        file.seek(begin)
        return file.read(end - begin)
    return b""


def memory(pids):
    """What lies in pages that are locked, and in all others that can be written. A lock is not
    inherited, but a page that a child has in common with its parent is locked by the parent."""
    locked, common, others = bytearray(), set(), bytearray()
    for pid in pids:
        for begin, end in writable(pid, True):
            locked += content(pid, begin, end)
            common.update(frames(pid, begin, end))
    check(len(common) > 1, "nothing is locked, or this kernel does not show page frames")
    for pid in pids:
        for begin, end in writable(pid, False):
            data = content(pid, begin, end)
            for at, frame in enumerate(frames(pid, begin, end)):
                if frame == 0 or frame not in common:
                    others += data[at * PAGE : (at + 1) * PAGE]
    return bytes(locked), bytes(others)


class Watch(threading.Thread):
    """What processes show of themselves, for as long as the command runs."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.seen = process, set()
        self.start()

    def run(self):
        while self.process.poll() is None:
            for pid in family(self.process.pid):
                for name in ("cmdline", "environ"):
                    with contextlib.suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
                        self.seen.add(file.read())


class Search:
    """All that one run has left anywhere: {where: bytes}, and the secrets that were in it."""

    def __init__(self, scenario, tree):
        self.scenario, self.tree = scenario, tree
        self.secrets, self.places, self.locked = {}, {}, b""

    def learn(self):
        """Those of the tree as it is now."""
        for path in directory(self.tree).glob("*.kek"):
            self.secrets[f"kek {path.name}"] = path.read_bytes()
        for number in (*self.scenario.there, *self.scenario.away):
            image = self.tree.image(number)
            with contextlib.suppress(Exception):  # it is not in the keystore yet
                token = token_of(image)
                jwk = self.scenario.jwk(self.tree, token)
                key = self.tree.root.parent / "learnt"
                unwrap(self.tree, token, jwk, key)
                self.secrets[f"device key {number}"] = key.read_bytes()
                what = f"key of generation {token['generation']}, {number}"
                self.secrets[what] = base64.urlsafe_b64decode(jwk["k"] + "=")
        for path in (self.tree.conf / "keys").glob("*.key"):
            self.secrets[f"key file {path.name}"] = path.read_bytes()[:4096]
        for server in getattr(self.scenario, "servers", {}).values():
            self.secrets |= server.secrets()

    def add(self, where, data):
        self.places[where] = self.places.get(where, b"") + data + bytes(16)

    def hold(self, call, log, kills):
        """The command, held at CALL: looked at there."""
        words = self.tree.command("--json", "--verbose", *self.scenario.words)
        injection = f"inject={call.name}:signal=SIGSTOP:when={call.number}"
        log.write_text("")
        tracer = ["strace", "-qq", "-f", "-s", "0", "-o", log, "-P", self.tree.root / call.process]
        process = start([*tracer, "-e", f"trace={call.name}", "-e", injection, *words])
        watch = Watch(process)
        wait_stopped(process, log)
        send_all(process, signal.SIGSTOP)
        locked, others = memory(family(process.pid))
        self.locked += locked
        self.add(MEMORY, others)
        send_all(process, signal.SIGKILL if kills else signal.SIGCONT)
        self.end(finish(process))
        watch.join()
        check(watch.seen, "no process was seen")
        self.add("arguments or environments", b"\0".join(watch.seen))

    def end(self, done):
        self.add("output", f"{done.out}\n{done.err}".encode())

    def judge(self):
        for path in self.tree.root.rglob("*"):
            if path.is_file() and not path.is_symlink() and not KEPT.search(str(path)):
                self.add(f"files ({path.name})", path.read_bytes())
        for kind, server in getattr(self.scenario, "servers", {}).items():
            self.add(f"the wire to {kind}", bytes(server.recorder.kept))
            check(len(server.recorder.kept) > 1000, f"nothing was recorded of {kind}")
        finder = Finder(self.secrets)
        for where, data in self.places.items():
            found = {name for name, _ in self.search(finder, data)}
            check(not found, f"{sorted(found)} in {where}")
        return {name for name, _ in self.search(finder, self.locked)}

    def search(self, finder, data):
        file = self.tree.root.parent / "searched"
        file.write_bytes(data)
        return finder.search(file)


def prepared(scenario, scratch, index):
    if hasattr(scenario, "servers"):
        scenario.reset()
    tree = scenario.template.copy(scratch / f"held-{index}")
    scenario.configure(tree)
    if hasattr(scenario, "use_tpm"):
        scenario.use_tpm(tree)
    return tree


def recorder_finds(server):
    """Whatever is in clear on its wire is found."""
    for text in server.secrets().values():
        with socket.create_connection(("127.0.0.1", server.port())) as line:
            line.sendall(text)
            deadline = time.monotonic() + HANG_S
            while text not in server.recorder.kept:
                check(time.monotonic() < deadline, "the recorder does not see what is in clear")
                time.sleep(0.01)
    server.recorder.kept.clear()


def searched(scenario, stride):
    def test(scratch):
        s = scenario(scratch)
        try:
            calls = [call for call in s.record(scratch) if changing(s.template, call)]
            choose = every(stride)
            for server in getattr(s, "servers", {}).values():
                server.record()
                recorder_finds(server)
            return hold_at([call for call in calls if choose(s.template, call)], s, scratch)
        finally:
            s.stop()

    test.__name__ = scenario.__name__
    test.__doc__ = f"{scenario.__name__}, no secret is anywhere else than where it belongs"
    return test


def hold_at(calls, scenario, scratch):
    guarded = set()
    for index, call in enumerate(calls):
        search = Search(scenario, prepared(scenario, scratch, index))
        search.learn()
        search.hold(call, scratch / "log", kills=index % 2 == 1)
        search.learn()
        search.end(search.tree.qs("--json", "--verbose", *scenario.words))
        search.learn()
        guarded |= search.judge()
        remove(search.tree.root)
    check(guarded, "not even in locked memory was a secret found")
    return f"{len(calls)} times held; found where it is locked: {', '.join(sorted(guarded))}"


main(
    searched(IntoTpm, 29),
    searched(OutOfTpm, 29),
    searched(IntoKmip, 29),
    searched(KmipIntoVault, 29),
    searched(OutOfVault, 29),
    searched(MoveToVault, 47),
)
