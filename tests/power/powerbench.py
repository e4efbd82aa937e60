"""Power cuts: what disks hold after one, at any instant of a command, and whether that is enough.

A scenario of tests/fault (a tree, a command, what must hold) is run once in a guest, where /etc is
a file system of its own on one disk and the devices are others; disks.py writes down all writes
and flushes of all disks in one order. From that any state is built that a power cut may leave: of
every disk what its last flush made durable, and of what was written since any part, sector by
sector, in any order. The file system recovers (e2fsck plays its journal), its /etc and the disks
become a --root tree again, and there the scenario judges, with stock tools, and runs the command
a second time."""

import contextlib
import dataclasses
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "fault"))

import disks  # noqa: E402
from faultbench import (  # noqa: E402
    DATA_AT,
    DATA_SIZE,
    JOBS,
    MIB,
    QS_UTIL,
    REPOSITORY,
    Broken,
    Run,
    Tree,
    check,
    explain,
    in_parallel,
    must,
    remove,
    run,
)
from sweep import Call, Fault  # noqa: E402

SECTOR = 512
ETC, ETC_SIZE = "etc", 64 * MIB
KEPT = ("etc", "var")  # directories of a tree that lie on that disk
DEVICES = 8  # as many as the scenario that has most
CUT = Fault("power cut", "SIGKILL for the whole machine", None)
NOWHERE = Call("main", "power", 0, "", "", 0)

# As many random states of each command as there is time for.
STATES = int(os.environ.get("QS_POWER_STATES") or 24)
# The second run costs more than the judgement: it is made in one state of so many.
SECOND_RUN_EACH = int(os.environ.get("QS_POWER_SECOND") or 4)

CANNOT_RUN = 77  # of tests/guest/run


class CannotRun(Exception):
    """No guest can run on this host; the text says why."""


def disk_name(number):
    """The serial of a device in the guest, where udev makes the tree's link of it (links.rules)."""
    return Tree("/").base(number).removeprefix("scsi-")


# ---- recording ----


def pack(scenario, directory):
    """The scenario's template as disk images: its /etc as ext4, its devices as they are."""
    directory.mkdir(parents=True)
    tree = scenario.template
    files = directory / "files"
    for name in KEPT:
        must("mkdir", "-p", files)
        must("cp", "-a", tree.root / name, files)
    with open(directory / f"{ETC}.img", "wb") as image:
        image.truncate(ETC_SIZE)
    # Without work that the kernel would do later, in the background.
    must(
        *("mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", files),
        directory / f"{ETC}.img",
    )
    remove(files)
    for number in range(1, DEVICES + 1):
        image = directory / f"{disk_name(number)}.img"
        if tree.image(number).exists():
            must("cp", "--sparse=always", tree.image(number), image)
        else:
            image.touch()
        check(image.stat().st_size <= DATA_AT + DATA_SIZE, "the scenario's devices are larger than the guest's")
        os.truncate(image, DATA_AT + DATA_SIZE)


def guest_words(scenario, given):
    """The command's words; files of the host that it is given come along under other names."""
    for word in map(str, scenario.words):
        if word.startswith("/") and Path(word).is_file():
            name = f"{len(list(given.iterdir()))}-{Path(word).name}"
            must("cp", "-p", word, given / name)
            word = f"/guest/given/{name}"
        yield word


@contextlib.contextmanager
def served(directory):
    """The disks, on a socket."""
    socket = directory / "socket"
    command = ["nbdkit", "--foreground", "--unix", socket, "python", HERE / "disks.py", f"dir={directory}"]
    with subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE) as server:
        try:
            while not socket.exists():
                if server.poll() is not None:
                    raise RuntimeError(f"nbdkit: {server.stderr.read().decode()}")
                time.sleep(0.02)
            yield socket
        finally:
            server.terminate()


def record(directory, scenarios):
    """Run the commands of SCENARIOS, {job: scenario}, in one guest. Leaves DIRECTORY/log."""
    for job, scenario in scenarios.items():
        pack(scenario, directory / "jobs" / job)
    for name in [ETC, *map(disk_name, range(1, DEVICES + 1))]:
        with open(directory / f"{name}.img", "wb") as image:
            image.truncate(ETC_SIZE if name == ETC else DATA_AT + DATA_SIZE)
    with open(directory / f"{disks.MARKS}.img", "wb") as image:
        image.truncate(MIB)
    (directory / "given").mkdir()
    lines = [f"{job} {' '.join(guest_words(scenario, directory / 'given'))}\n" for job, scenario in scenarios.items()]
    (directory / "jobs.list").write_text("".join(lines))
    rule = 'SUBSYSTEM=="block", ENV{ID_SERIAL}=="3*", SYMLINK+="disk/by-id/scsi-$env{ID_SERIAL}"\n'
    (directory / "links.rules").write_text(rule)
    if not shutil.which("nbdkit"):
        raise CannotRun("missing packages: nbdkit (see tests/install-deps guest)")
    with served(directory) as socket:
        command = [REPOSITORY / "tests/guest/run", "--bin", Path(QS_UTIL).parent]
        for name in disks.names(directory):
            command += ["--disk", f"virtio:{name}:nbd={socket}"]
        command += ["--copy", f"{directory}/jobs.list:guest/jobs"]
        command += ["--copy", f"{directory}/given:guest/given"]
        command += ["--copy", f"{directory}/links.rules:etc/udev/rules.d/99-links.rules"]
        done = subprocess.run(
            [str(word) for word in [*command, HERE / "record.bats"]], capture_output=True, check=False, text=True
        )
    if done.returncode == CANNOT_RUN:
        raise CannotRun(done.stderr.strip())
    if done.returncode != 0:
        raise RuntimeError(f"the guest: status {done.returncode}\n{done.stdout}\n{done.stderr}")


# ---- what a power cut leaves ----


@dataclasses.dataclass
class Recording:
    """What happened to the disks from the start of a job to its end."""

    job: str
    images: Path  # as the disks were before
    events: list  # (kind, disk, offset, data), in order
    begin: int  # index of the first event of the command
    end: int  # of the first one after it
    status: int  # of the command

    def cuts(self):
        """Instants just before something became durable, or a promise was given. What a cut at
        another instant leaves, one at the next of these may leave too."""
        at = [i for i in range(self.begin, len(self.events)) if self.events[i][0] == disks.FLUSH]
        return sorted({*at, self.end, len(self.events)})

    def pending(self, cut):
        """How many sectors are not durable before event CUT."""
        since = {}
        for kind, name, _, data in self.events[:cut]:
            since[name] = 0 if kind == disks.FLUSH else since.get(name, 0) + len(data) // SECTOR
        return sum(since.values())


def recordings(directory):
    """{job: Recording} of a log."""
    found, job, events, marks = {}, None, [], {}
    for kind, name, offset, length, data in disks.records(directory):
        if kind != disks.MARK:
            events.append((kind, name, offset, data if kind == disks.WRITE else bytes(length)))
            continue
        word, _, rest = data.decode().partition(" ")
        if word == "load":
            job, events, marks = rest, [], {}
        elif word == "synced":
            images = directory / "jobs" / job
            found[job] = Recording(job, images, events, marks["begin"][0], marks["end"][0], int(marks["end"][1]))
        marks[word] = (len(events), rest)
    return found


def sectors(offset, data):
    """Whole sectors of a write: disks have no smaller unit, and none was written."""
    check(offset % SECTOR == 0 and len(data) % SECTOR == 0, "a write of half a sector")
    for at in range(0, len(data), SECTOR):
        yield (offset + at) // SECTOR, data[at : at + SECTOR]


def keep_all(writes, _choose):
    return [piece for offset, data in writes for piece in sectors(offset, data)]


def keep_none(_writes, _choose):
    return []


def keep_some_sectors(writes, choose):
    return [piece for piece in keep_all(writes, None) if choose.random() < 0.5]


def keep_some_writes(writes, choose):
    return keep_all([write for write in writes if choose.random() < 0.5], None)


def lose_one_write(writes, choose):
    lost = choose.randrange(len(writes)) if writes else None
    return keep_all([write for index, write in enumerate(writes) if index != lost], None)


def keep_one_write(writes, choose):
    return keep_all([choose.choice(writes)] if writes else [], None)


def tear_last_write(writes, choose):
    """All but the last write, of which some sectors."""
    return keep_all(writes[:-1], None) + keep_some_sectors(writes[-1:], choose)


TORN = (keep_some_sectors, keep_some_writes, lose_one_write, keep_one_write, tear_last_write)


def contents(recording, cut, keep, seed):
    """{disk: {sector: bytes}} after a cut before event CUT: what was flushed and what KEEP takes
    of the rest. A sector written twice since may hold either."""
    choose = random.Random(seed)
    durable, since = {}, {}
    for kind, name, offset, data in recording.events[:cut]:
        if kind == disks.FLUSH:
            durable.setdefault(name, {}).update(keep_all(since.pop(name, []), None))
        else:
            since.setdefault(name, []).append((offset, data))
    for name, writes in sorted(since.items()):
        durable.setdefault(name, {}).update(keep(writes, choose))
    return durable


@dataclasses.dataclass(frozen=True)
class State:
    cut: int
    keep: object
    seed: int

    def __str__(self):
        return f"cut before event {self.cut}, {self.keep.__name__}, seed {self.seed}"


def fingerprint(recording, state):
    """Two states with the same one leave the same on all disks, and the same was said about it."""
    left = contents(recording, state.cut, state.keep, state.seed)
    said = state.cut >= recording.end
    return hash((said, frozenset((name, at, data) for name in left for at, data in left[name].items())))


def chosen_states(recording, torn):
    """Nothing and everything of what was not flushed, at every flush, and TORN random states;
    fewer, where there are no more that differ."""
    cuts = recording.cuts()
    chosen = {}
    for state in (State(cut, keep, 0) for cut in cuts for keep in (keep_none, keep_all)):
        chosen.setdefault(fingerprint(recording, state), state)
    epochs = len(chosen)
    # Where much is not durable yet, much can go wrong; a commit record alone is there or not.
    weights = [min(recording.pending(cut), 64) for cut in cuts]
    choose = random.Random(recording.job)
    for seed in range(10 * torn):
        if len(chosen) >= epochs + torn:
            break
        state = State(choose.choices(cuts, weights)[0], choose.choice(TORN), seed)
        chosen.setdefault(fingerprint(recording, state), state)
    return list(chosen.values())


# ---- judging ----


def revive(scenario, recording, state, root):
    """The tree that the machine would find after the cut."""
    left = contents(recording, state.cut, state.keep, state.seed)
    tree = Tree(root)
    must("cp", "-a", scenario.template.root, root)
    for name in KEPT:
        shutil.rmtree(root / name)
    for path in tree.root.glob("img/d*"):
        name, size = disk_name(int(path.name[1:])), path.stat().st_size
        overlay(recording.images / f"{name}.img", path, left.get(name, {}))
        os.truncate(path, size)  # the guest's disks are as large as the largest
    image = Path(f"{root}.etc")
    overlay(recording.images / f"{ETC}.img", image, left.get(ETC, {}))
    done = run("e2fsck", "-fy", image)
    check(done.status in (0, 1), f"the file system of /etc does not recover: {done}")
    must("debugfs", "-R", f"rdump {' '.join(f'/{name}' for name in KEPT)} {root}", image)
    image.unlink()
    return tree


def overlay(original, target, pieces):
    must("cp", "--sparse=always", original, target)
    with open(target, "r+b") as file:
        for at in sorted(pieces):
            file.seek(at * SECTOR)
            file.write(pieces[at])


def judge(scenario, recording, state, root, again):
    done = recording.status if state.cut >= recording.end else -9
    tree = revive(scenario, recording, state, root)
    scenario.inspect(tree, Run(done), NOWHERE, CUT)
    if again:
        scenario.again(tree, None)
    remove(root)


def judge_all(directory, scenario, recording, torn=STATES, each=SECOND_RUN_EACH):
    """Every chosen state. Returns what was tried, in words."""
    check(recording.status == scenario.expected, f"without a cut the command ends with {recording.status}")
    states = chosen_states(recording, torn)

    def one(item):
        number, state = item
        root = directory / f"{recording.job}-{number}"
        judge(scenario, recording, state, root, again=number % each == 0)

    results = in_parallel(one, list(enumerate(states)), JOBS)
    broken = [f"{item[1]}: {explain(error)}" for item, error in results if isinstance(error, Exception)]
    if broken:
        raise Broken("\n".join([f"{len(broken)} of {len(states)} states", *broken[:12]]))
    flushes = sum(event[0] == disks.FLUSH for event in recording.events[recording.begin : recording.end])
    return f"{len(states)} states, {flushes} flushes, {(len(states) + each - 1) // each} second runs"
