"""The scenario of a rotation: two devices there, one away. It runs several sets of workers one after
the other, so faults are put by what a call is about, in whichever process makes it."""

import contextlib
import hashlib
import itertools
import json
import os
import signal
import subprocess
import time

from enrolling import metadata
from faultbench import HANG_S, HEADER_SIZE, Broken, Tree, check, must, opens, read_part
from keystoring import directory, files, files_of, kek_in_file, token_of, unwrap
from sweep import RECORDED, Call, Fault, Scenario, changing, move, parse, path_of
from traced import children_of, finish, run_main, start

# A power cut and most faults leave the same headers over and over again: each is judged once.
TOKENS = {}  # by digests of headers
JUDGED = set()  # such a digest, and the key by which it opened


def named_path(arguments):
    """What strace -P can be told of a call: its descriptor or its whole path."""
    if "<" in arguments.split(",")[0]:
        return arguments.split("<", 1)[1].split(">", 1)[0]
    return path_of(arguments)


def wait_stopped(process, log):
    """Until strace has stopped one of the processes, or all have ended."""
    deadline = time.monotonic() + HANG_S
    while process.poll() is None and "stopped by SIGSTOP" not in log.read_text(errors="replace"):
        check(time.monotonic() < deadline, "hangs")
        time.sleep(0.005)


def send_all(process, number):
    """A signal to all at once."""
    for main in children_of(process.pid):
        for pid in [main, *children_of(main)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def stop_all(process, log):
    """Wait until strace has stopped one of the processes, then end all of them at once."""
    wait_stopped(process, log)
    send_all(process, signal.SIGKILL)
    return finish(process)


def store(tree):
    return json.loads((directory(tree) / "keystore.json").read_text(encoding="ascii"))


def every(stride):
    """For swept(): every STRIDEth point in the order of the run; QS_FAULT_ALL=1 takes them all."""
    step = 1 if os.environ.get("QS_FAULT_ALL") else stride
    passed = itertools.count()
    return lambda tree, call: next(passed) % step == 0


class Rotate(Scenario):
    """Every device and backup opens at every point, by jose and cryptsetup alone."""

    words = ("keystore", "rotate", "--force")
    enable = ("--yes", "keystore", "enable")
    there, away = (1, 2), (3,)

    def __init__(self, scratch):
        everyone = (*self.there, *self.away)
        tree = Tree.make(scratch / "template", count=len(everyone))
        super().__init__(tree)
        links = [tree.link(number) for number in everyone]
        must(*tree.command("cryptformat", "--no-open", *links))
        self.configure(tree)
        must(*tree.command(*self.enable))
        must(*tree.command("cryptenroll", *links, "--keystore"))
        for number in self.away:
            (tree.root / tree.link(number)[1:]).unlink()

    def configure(self, tree):
        """Where its providers find what they need."""

    def record(self, scratch):
        return self.recorded(self.template.copy(scratch / "recorded"), scratch / "record.log")

    def recorded(self, tree, log):
        """The calls of a run on TREE."""
        tracing = ("-f", "-y", "-s", "0", "-e", f"trace={','.join(sorted(RECORDED))}")
        done = run_main(tree.command(*self.words), log, *tracing)
        check(done.status == self.expected, f"without any fault: {done}")
        calls = [
            move(call, tree, self.template)
            for call in parse(log, None, named_path)
            # Locks of images are named by their inodes, which are others in each copy.
            if call.process.startswith(f"{tree.root}/") and "/run/" not in call.process
        ]
        return [self.about(call, tree) for call in calls]

    def about(self, call, tree):
        """By what it is about, below the root of whichever tree."""
        return Call(os.path.relpath(call.process, tree.root), call.name, call.number, call.path, call.arguments, call.result)

    def strike(self, tree, call, fault, log):
        about = tree.root / call.process
        stops = fault.kills or "SIGSTOP" in fault.tampering
        tampering = "signal=SIGSTOP" if fault.kills else fault.tampering
        injection = f"inject={call.name}:{tampering}:when={call.number}{'+' if fault.onward else ''}"
        log.write_text("")
        command = ["strace", "-qq", "-f", "-y", "-s", "0", "-o", log, "-P", about]
        command += ["-e", f"trace={call.name}", "-e", injection, *tree.command(*self.words)]
        process = start(command)
        done = self.end(tree, process, log, fault)
        met = "stopped by SIGSTOP" if stops else "(INJECTED)"
        return done if met in log.read_text(errors="replace") else None

    def end(self, _tree, process, log, fault):
        return stop_all(process, log) if fault.kills else finish(process)

    def inspect(self, tree, done, call, fault):
        self.everything_opens(tree)
        if fault.kills:
            return
        self.ends_orderly(done, call)
        if done.status == 0:
            self.finished(tree)

    def everything_opens(self, tree):
        for number in (*self.there, *self.away):
            for place in (tree.image(number), tree.backup(number)):
                self.generation(tree, place)

    def jwk(self, tree, token):
        """What unwraps the key in TOKEN."""
        return kek_in_file(tree, token["generation"])

    def generation(self, tree, place):
        """That of the key that opens PLACE."""
        header = hashlib.sha256(read_part(place, 0, HEADER_SIZE)).digest()
        if header not in TOKENS:
            TOKENS[header] = token_of(place)
        jwk = self.jwk(tree, TOKENS[header])
        if (header, jwk["k"]) not in JUDGED:
            key = tree.root.parent / f"{tree.root.name}.recovered"
            unwrap(tree, TOKENS[header], jwk, key)
            check(opens(place, key), f"what the keystore wrapped does not open {place}")
            JUDGED.add((header, jwk["k"]))
        return TOKENS[header]["generation"]

    def finished(self, tree):
        now = store(tree)
        check("rotation" not in now, f"exit status 0, but {now.get('rotation')}")
        check(files(tree) == files_of(now), f"there is {files(tree)}, and not {files_of(now)}")
        numbers = [generation["number"] for generation in now["generations"]]
        check(not self.away or 1 in numbers, "the generation of the device that is away is gone")
        for number in self.there:
            found = self.generation(tree, tree.image(number))
            check(found == now["current"], f"device {number} is at generation {found}")
            check(
                tree.backup(number).read_bytes() == read_part(tree.image(number), 0, HEADER_SIZE),
                f"the backup of device {number} differs from its header",
            )
        check(not tree.leftovers(), f"left over: {tree.leftovers()}")

    def again(self, tree, unsynced):
        done = self.second(tree, unsynced)
        check(done.status == 0, f"the second run: {done}")
        self.finished(tree)
        self.everything_opens(tree)


VANISH = Fault("a disk vanishes at every changing call", "signal=SIGSTOP", changing)


class Unplugged(Rotate):
    """The first device goes while the command is held, and is back when that has ended."""

    def end(self, tree, process, log, _fault):
        wait_stopped(process, log)
        self.go(tree)
        send_all(process, signal.SIGCONT)
        return finish(process)

    @staticmethod
    def aside(tree):
        return tree.root / "var/aside"

    def go(self, tree):
        tree.image(1).rename(self.aside(tree))

    def inspect(self, tree, done, call, fault):
        check(done.status in (0, 1, 2, 4, 6, 7), "ends in no orderly way")
        check(done.status == 0 or "qs-util keystore: " in done.err, "says nothing")
        self.aside(tree).rename(tree.image(1))
        self.everything_opens(tree)
        now = store(tree)
        check(done.status != 0 or "rotation" not in now, "exit status 0, but it is not finished")
        if done.status == 0:
            check(self.generation(tree, tree.image(2)) == now["current"], "the other device is not done")


class Replaced(Unplugged):
    """An empty disk takes its place."""

    def go(self, tree):
        super().go(tree)
        with open(tree.image(1), "wb") as image:
            image.truncate(self.aside(tree).stat().st_size)


class Cut(Unplugged):
    """It loses most of its header while it is open; a copy of it comes back."""

    def go(self, tree):
        must("cp", "--sparse=always", tree.image(1), self.aside(tree))
        os.truncate(tree.image(1), 100 << 10)


class Meddled(Unplugged):
    """Another program puts a token into its header, where our lock lets it: that token stays."""

    def go(self, tree):
        token = tree.root / "var/token.json"
        token.write_text('{"type":"somebody-elses","keyslots":[]}', encoding="ascii")
        words = ["cryptsetup", "token", "import", "--token-id", "9", "--json-file", token, tree.image(1)]
        done = subprocess.run([str(word) for word in ["timeout", "2", *words]], capture_output=True, check=False)
        if done.returncode == 0:
            (tree.root / "var/put").touch()
        os.link(tree.image(1), self.aside(tree))

    def again(self, tree, unsynced):
        super().again(tree, unsynced)
        put = (tree.root / "var/put").exists()
        check("9" in metadata(tree.image(1))["tokens"] or not put, "another program's token is gone")


class RotateEight(Rotate):
    """A fleet in one batch: for power cuts, which hit all of it at once."""

    there, away = tuple(range(1, 9)), ()

    def __init__(self, scratch):
        super().__init__(scratch)
        # What the disk of /etc has no room for: nothing here opens by it.
        for path in [*self.template.conf.glob("keys/*"), *self.template.conf.glob("headers/*.d/*")]:
            path.unlink()


class Move(Rotate):
    """A device with a key file goes into the keystore: at every point it opens by one or the other."""

    words = ("keystore", "rewrap", "/dev/disk/by-id/scsi-30001")

    def __init__(self, scratch):
        tree = Tree.make(scratch / "template")
        Scenario.__init__(self, tree)
        must(*tree.command("cryptformat", "--no-open", tree.link()))
        self.configure(tree)
        must(*tree.command(*self.enable))
        self.key = scratch / "key"
        self.key.write_bytes(tree.key().read_bytes())

    def everything_opens(self, tree):
        for place in (tree.image(), tree.backup()):
            check(self.has_key_file(tree, place) or self.is_in_keystore(tree, place), f"nothing opens {place}")

    def has_key_file(self, tree, place):
        """By its file, which the line names as long as that is the only way."""
        return opens(place, tree.key())

    def is_in_keystore(self, tree, place):
        try:
            self.generation(tree, place)
        except Broken:
            return False
        return True

    def inspect(self, tree, done, call, fault):
        super().inspect(tree, done, call, fault)
        if not self.is_in_keystore(tree, tree.image()):
            check(tree.line() in tree.tab(), "the line names no key, and the keystore does not open it")

    def finished(self, tree):
        check(not tree.key().exists(), "the key file is still there")
        check(self.is_in_keystore(tree, tree.image()), "the keystore does not open it")
        check(f"{tree.link()}  none  luks,noauto\n" in tree.tab(), f"crypttab: {tree.tab()}")
        check(
            tree.backup().read_bytes() == read_part(tree.image(), 0, HEADER_SIZE),
            "the backup differs from the header",
        )
        for place in [tree.image(), *(tree.conf / "headers").rglob("*.header")]:
            check(not opens(place, self.key), f"the old key still opens {place}")
        check(not tree.leftovers() and not tree.journals(), "something is left over")
