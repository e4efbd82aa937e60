"""Every point of a command, one fault at each, injected from outside by strace.

strace counts "when=N" per kind of call and per process, so N alone names several
points at once and an early call of the main process hides the same N of a
worker. Hence the two kinds of process are swept apart:

  main    strace without -f sees only the process that was started.
  worker  the bench holds the flock of the image that a worker waits for before
          it looks at the disk (the one that udev takes), attaches strace to the
          waiting worker, and lets go: N counts from there. Workers that only read
          wait for no lock: there strace delays the main process behind its fork.

A run without faults is recorded first; its calls are the points. A run whose
fault was not met is an error of the sweep, so what a sweep counts was hit."""

import collections
import dataclasses
import os
import re

from faultbench import Broken, check, explain, in_parallel, remove
from traced import FORKING, run_main, run_worker

CREATING = {"mkdir", "mkdirat", "link", "linkat", "symlink", "symlinkat", "rename", "renameat", "renameat2"}
WRITING = {"write", "pwrite64", "writev", "pwritev", "ftruncate", "fallocate", "copy_file_range"}
REMOVING = {"unlink", "unlinkat", "rmdir"}
SYNCING = {"fsync", "fdatasync", "sync_file_range", "syncfs"}
ATTRIBUTES = {"chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat"}
READING = {"read", "pread64", "readv", "preadv", "getdents64"}
LOOKING = {"access", "faccessat", "faccessat2", "newfstatat", "statx", "readlink", "readlinkat", "statfs"}
CHANGES = CREATING | WRITING | REMOVING | SYNCING | ATTRIBUTES | {"openat"}
RECORDED = CHANGES | READING | LOOKING | FORKING

# How strace -y shows a descriptor and a path.
LINE = re.compile(r"^(?:(\d+) +)?(\w+)\((.*)\) += (-?\d+|\?)(.*)$")
UNFINISHED = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
AT_PATH = re.compile(r'^(?:AT_FDCWD|\d+)<([^>]*)>, "([^"]*)"')
LAST_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"([^"]*)"(?:, [A-Z_0-9]+)?$')
PATH = re.compile(r'^"([^"]*)"')
DESCRIPTOR = re.compile(r"^\d+<([^>]*)>")


@dataclasses.dataclass(frozen=True)
class Call:
    process: str  # "main" or "worker"
    name: str
    number: int  # 1 is the first call of this name in its process
    path: str
    arguments: str
    result: int

    def __str__(self):
        return f"{self.process} {self.name} {self.number} ({self.path})"

    def creates(self):
        return self.name in CREATING or (self.name == "openat" and "O_CREAT" in self.arguments)


def path_of(arguments):
    found = AT_PATH.match(arguments)
    if found:
        return os.path.normpath(os.path.join(found[1], found[2])) if found[2] else found[1]
    found = PATH.match(arguments) or DESCRIPTOR.match(arguments)
    return found[1] if found else ""


def last_path(arguments):
    """The second path of a rename or link."""
    found = LAST_PATH.search(arguments)
    return os.path.normpath(os.path.join(found[1] or "/", found[2]))


def whole_lines(log):
    """Lines of strace -f that another process interrupted, put together when they end."""
    begun = {}
    for line in log.read_text(errors="replace").splitlines():
        found = UNFINISHED.match(line)
        if found:
            begun[found[1]] = found[0][: found.start(2) - found.start()] + found[2]
            continue
        found = RESUMED.match(line)
        yield begun.pop(found[1], "") + found[2] if found else line


def parse(log, process, about=None):
    """The calls of a log of strace -y, in order. What is told apart and counted is PROCESS, or
    what ABOUT says of a call's arguments."""
    counts = collections.Counter()
    calls = []
    for line in whole_lines(log):
        found = LINE.match(line)
        if not found:
            continue
        pid, name, arguments, result = found.groups()[:4]
        place = about(arguments) if about else process
        counts[pid, name, place] += 1
        result = -1 if result == "?" else int(result)
        number = counts[pid, name, place]
        calls.append(Call(place, name, number, path_of(arguments), arguments, result))
    return calls


# ---- which calls are points ----


def below(tree, call):
    return call.path.startswith(f"{tree.root}/")


def changing(tree, call):
    """Succeeded, and left something that is still there when the process is gone."""
    if not below(tree, call) or call.result < 0:
        return False
    if call.name == "openat":
        return "O_CREAT" in call.arguments or "O_TRUNC" in call.arguments
    return call.name in CREATING | WRITING | REMOVING | SYNCING | ATTRIBUTES


def taking_space(tree, call):
    return changing(tree, call) and (call.creates() or call.name in WRITING | SYNCING)


def syncing(tree, call):
    return below(tree, call) and call.name in SYNCING


def reading(tree, call):
    """Whatever is looked at on disks and in the kernel's lists; not libraries, sockets, memory."""
    if call.name in READING | {"openat"} and re.match(r"/(proc|sys|run)/", call.path):
        return not re.match(r"/proc/(self|\d+)/(maps|status|cmdline|environ|fd)", call.path)
    if not below(tree, call) or call.creates():
        return False
    return call.name in READING | LOOKING | {"openat"}


# ---- what a power cut could still take back ----


class Unsynced:
    """Files and directories that were changed and not synced since. The disk must not be written
    while something that begins with one of FIRST is among them."""

    def __init__(self, tree, first=()):
        self.tree = tree
        self.first = first
        self.paths = set()

    def __call__(self, calls):
        for call in calls:
            if changing(self.tree, call) and "/run/" not in call.path:
                self.apply(call)
        return self

    def relative(self, path):
        return os.path.relpath(path, self.tree.root)

    def apply(self, call):
        path = self.relative(call.path)
        directory = os.path.dirname(path)
        if self.first and path.startswith("img/") and call.name in WRITING:
            early = sorted(found for found in self.paths if found.startswith(self.first))
            check(not early, f"the disk is written before these are synced: {early}")
        if call.name == "syncfs":
            self.paths.clear()
        elif call.name in SYNCING:
            self.paths.discard(path)
        elif call.name in WRITING | ATTRIBUTES:
            self.paths.add(path)
        elif call.name in REMOVING:
            self.paths = (self.paths - {path}) | {directory}
        elif call.name == "openat":
            self.paths |= {path, directory}
        elif call.name in {"mkdir", "mkdirat"}:
            self.paths.add(directory)
        else:
            self.arrive(call, path, self.relative(last_path(call.arguments)))

    def arrive(self, call, source, target):
        """A file gets a name; its content had to be there before."""
        check(source not in self.paths, f"{source} becomes {target} before it is synced")
        self.paths.add(os.path.dirname(target))
        if call.name.startswith("rename"):
            self.paths.add(os.path.dirname(source))
            self.paths.discard(target)


# ---- faults ----


@dataclasses.dataclass(frozen=True)
class Fault:
    label: str
    tampering: str  # strace's words
    points: object  # function of tree and call
    onward: bool = False  # it fails from there on, not once

    @property
    def kills(self):
        return "SIGKILL" in self.tampering

    def inject(self, call):
        return f"inject={call.name}:{self.tampering}:when={call.number}{'+' if self.onward else ''}"


KILL = Fault("kill -9 at every changing call", "signal=SIGKILL", changing)
FULL = Fault("ENOSPC at every call that takes space", "error=ENOSPC", taking_space)
STAYS_FULL = Fault("ENOSPC from every such call on", "error=ENOSPC", taking_space, onward=True)
WRITE_ERROR = Fault("EIO at every changing call", "error=EIO", changing)
READ_ERROR = Fault("EIO at every reading call", "error=EIO", reading)


# ---- sweeps ----


class Scenario:
    """One command on one kind of tree. Subclasses say what must hold.

    template    a Tree; every point gets a copy
    words       the command without its program
    expected    its exit status without a fault
    gates       numbers of the images whose lock the workers wait for; none: they wait for no lock
    fork        without gates: which of the workers is struck, by its fork
    """

    words = ()
    expected = 0
    synced_first = ()  # what has to be durable before the disk is written (one device only)
    kill_all = True  # a kill -9 takes the main process along; False: the worker alone
    gates = (1,)
    fork = 1

    def __init__(self, template):
        self.template = template
        self.calls = []  # of a run without faults

    def stop(self):
        """End whatever it has started, when all its sweeps are over."""

    def command(self, tree):
        return tree.command(*self.words)

    def inspect(self, tree, done, call, fault):
        """After the fault. DONE.status is negative when the command was killed."""

    def ends_orderly(self, done, call):
        """It was not killed: it says what failed, and a sync that failed is no success."""
        name = next(word for word in self.words if not word.startswith("-"))
        check(done.status in range(8), "ends in no orderly way")
        check(done.status == 0 or f"qs-util {name}: " in done.err, "says nothing")
        if "sync" in call.name and "/run/" not in call.path:
            check(done.status != 0, "exit status 0 though a sync failed")

    def again(self, tree, unsynced):
        """Run the command a second time, with second(), and judge the end."""

    def second(self, tree, unsynced):
        """The second run. When it succeeds, no power cut takes anything back: neither of its own
        work nor of what the first run left UNSYNCED (None: not known)."""
        log = tree.root.parent / f"{tree.root.name}.second"
        options = ("-f", "--seccomp-bpf", "-y", "-e", f"trace={','.join(sorted(CHANGES))}")
        done = run_main(self.command(tree), log, *options)
        after = Unsynced(tree, self.synced_first)
        after.paths = set(unsynced.paths) if unsynced else set()
        after(parse(log, "second"))
        log.unlink()
        check(done.status != 0 or not after.paths, f"the second run leaves unsynced: {sorted(after.paths)}")
        return done

    def record(self, scratch):
        """All calls of a run without faults, the worker's in their place among main's."""
        main = self.record_one(scratch, "main")
        forks = [index for index, call in enumerate(main) if call.name in FORKING]
        worker = self.record_one(scratch, "worker") if forks else []
        fork = forks[self.fork - 1] if forks else len(main)
        return main[:fork] + worker + main[fork:]

    def record_one(self, scratch, process):
        tree = self.template.copy(scratch / f"recorded-{process}")
        log = scratch / "record.log"
        done = self.run(tree, process, log, "-y", "-e", f"trace={','.join(sorted(RECORDED))}")
        check(done.status == self.expected, f"without any fault: {done}")
        remove(tree.root)
        return [move(call, tree, self.template) for call in parse(log, process)]

    def run(self, tree, process, log, *options, main_too=False):
        command = self.command(tree)
        if process == "main":
            return run_main(command, log, *options)
        gates = [tree.image(number) for number in self.gates]
        return run_worker(command, gates, log, *options, main_too=main_too, fork=self.fork)

    def strike(self, tree, call, fault, log):
        """One run with one fault. Returns it, or None when the fault was not met."""
        whole = fault.kills and call.process == "worker" and self.kill_all
        traced = {call.name, "wait4"} if whole else {call.name}
        options = ["-e", f"trace={','.join(sorted(traced))}", "-e", fault.inject(call)]
        if "wait4" in traced:
            # The main process dies as soon as it sees the worker dead: nothing survives a kill.
            options += ["-e", "inject=wait4:signal=SIGKILL"]
        done = self.run(tree, call.process, log, *options, main_too="wait4" in traced)
        if not fault.kills:
            return done if "(INJECTED)" in log.read_text(errors="replace") else None
        if call.process == "main":
            return done if done.status == -9 else None
        return done if "killed by SIGKILL" in last_worker_line(log, call) else None

    def sweep(self, scratch, fault, choose=None):
        """Hit every point of FAULT (that CHOOSE takes). Returns what was hit, in words."""
        calls = self.calls = self.calls or self.record(scratch)
        unsynced = Unsynced(self.template, self.synced_first)(calls)
        check(self.expected != 0 or not unsynced.paths, f"leaves unsynced: {sorted(unsynced.paths)}")
        points = {}
        for index, call in enumerate(calls):
            if not fault.points(self.template, call) or (choose and not choose(self.template, call)):
                continue
            # What two workers do at the same number is met in both at once: one point.
            unsynced = Unsynced(self.template)(calls[:index]) if fault.kills and len(self.gates) < 2 else None
            points.setdefault((call.process, call.name, call.number), (index, call, unsynced))
        points = list(points.values())
        check(points, "there is no such point")
        results = in_parallel(lambda point: self.one_point(scratch, fault, *point), points)
        broken = [
            f"at {point[1]}: {explain(error)}" for point, error in results if isinstance(error, Exception)
        ]
        if broken:
            more = [f"and at {len(broken) - 12} more"] if len(broken) > 12 else []
            head = f"{fault.label}: {len(broken)} of {len(points)} points"
            raise Broken("\n".join([head] + broken[:12] + more))
        return summary([point[1] for point in points])

    def one_point(self, scratch, fault, index, call, unsynced):
        for attempt in range(3):
            tree = self.template.copy(scratch / f"point-{index}-{attempt}")
            log = scratch / f"point-{index}-{attempt}.log"
            done = self.strike(tree, call, fault, log)
            if done is not None:
                break
            remove(tree.root)
        check(done is not None, "the fault was not met")
        try:
            self.inspect(tree, done, call, fault)
            self.again(tree, unsynced)
        except Broken as error:
            raise Broken(f"{error} [the faulty run: {done}]") from None
        remove(tree.root)
        log.unlink()


def one_in(stride):
    """For swept(), where a sweep differs little from another one: every STRIDEth point of each kind
    of call. QS_FAULT_ALL=1 takes them all."""
    step = 1 if os.environ.get("QS_FAULT_ALL") else stride
    return lambda tree, call: call.number % step == 1 % step


def swept(scenario, fault, what, choose=None):
    """A test that sweeps what SCENARIO makes of a scratch directory."""
    test = swept_by(scenario, what, (fault, choose))
    test.__name__ += "/" + fault.label.split()[0]
    return test


def swept_by(scenario, what, *faults):
    """The same by several faults, each with what chooses its points: where making the scenario takes
    longer than a few points."""

    def test(scratch):
        made = scenario(scratch)
        try:
            notes = [f"{fault.label}, {made.sweep(scratch, fault, choose)}" for fault, choose in faults]
        finally:
            made.stop()
        return "; ".join(notes)

    test.__name__ = what.split(",")[0].replace(" ", "-")
    test.__doc__ = what
    return test


def move(call, tree, template):
    """The same call in the template's place, so that calls of different runs can be compared."""

    def moved(text):
        return text.replace(f"{tree.root}/", f"{template.root}/").replace(f"<{tree.root}>", f"<{template.root}>")

    return dataclasses.replace(call, path=moved(call.path), arguments=moved(call.arguments))


def last_worker_line(log, call):
    """The line that tells the end of a worker whose call was met, or an empty one."""
    pids = set()
    for line in log.read_text(errors="replace").splitlines():
        pid, _, rest = line.partition(" ")
        if rest.strip().startswith(f"{call.name}("):
            pids.add(pid)
        if "killed by SIGKILL" in rest and pid in pids:
            return rest
    return ""


def summary(calls):
    by_process = collections.Counter(call.process for call in calls)
    by_name = collections.Counter(call.name for call in calls)
    processes = ", ".join(f"{number} in {name}" for name, number in sorted(by_process.items()))
    names = " ".join(f"{name} {number}" for name, number in by_name.most_common())
    return f"{len(calls)} points ({processes}; {names})"
