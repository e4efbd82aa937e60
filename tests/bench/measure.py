"""Timing of commands against each other, and the table of what came out."""

import atexit
import contextlib
import os
import statistics
import sys
import time
from dataclasses import dataclass


@dataclass
class Sample:
    wall: float  # seconds, as cpu
    cpu: float  # user and system time of the command and all its children


@dataclass
class Row:
    goal: str
    what: str
    peer: str
    wall: float  # ratio ours / peer
    cpu: float  # the same; None where CPU time says nothing
    aim: float  # of the wall ratio; None: a figure without an aim
    note: str = ""


def raise_priority():
    """Other work on the machine shall disturb little. Where the scheduler groups
    tasks by session, nice values count inside of a session only; the session's
    own value is put back at the end, for it is also that of the caller."""
    group = "/proc/self/autogroup"
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        with open(group, encoding="ascii") as f:
            before = f.read().split()[-1]
        set_autogroup(group, "-20")
        atexit.register(set_autogroup, group, before)
    except OSError as error:
        print(f"bench: priority not raised ({error}): trust the CPU column more", file=sys.stderr)


def set_autogroup(file, nice):
    with open(file, "w", encoding="ascii") as f:
        f.write(nice)


@contextlib.contextmanager
def realtime():
    """For us and what we start inside: a reader must not wait for what it watches."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def spawn(argv, output, realtime):
    actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
               (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    scheduler = {"scheduler": (os.SCHED_RR, os.sched_param(1))} if realtime else {}
    return os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions, **scheduler)


def run(argv, log, realtime=False):
    """One run; what it prints goes to the file LOG, which is shown if it fails."""
    with open(log, "wb") as out:
        start = time.perf_counter()
        pid = spawn(argv, out.fileno(), realtime)
        _, status, usage = os.wait4(pid, 0)
        wall = time.perf_counter() - start
    if status != 0:
        with open(log, encoding="utf-8", errors="replace") as f:
            raise SystemExit(f"bench: {' '.join(argv)[:300]}: status {status:#x}\n{f.read()}")
    return Sample(wall, usage.ru_utime + usage.ru_stime)


def interleave(variants, rounds, log, realtime):
    """VARIANTS: {name: (argv, prepare or None)}. Each round runs all of them, the
    first one another each time; a round before is not counted. {name: [Sample]}.
    REALTIME: only for what computes and is short, or others would starve."""
    names = list(variants)
    samples = {name: [] for name in names}
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            argv, prepare = variants[name]
            if prepare:
                prepare()
            sample = run(argv, log, realtime)
            if i > 0:
                samples[name].append(sample)
    return samples


def ratio(ours, peer, field):
    """Median of the rounds' ratios: a slow moment of the machine hits both."""
    pairs = zip((getattr(s, field) for s in ours), (getattr(s, field) for s in peer))
    return statistics.median(a / max(b, 1e-9) for a, b in pairs)


def compare(goal, what, peer_name, ours, peer, aim, note=""):
    milliseconds = [statistics.median(s.wall for s in x) * 1000 for x in (ours, peer)]
    times = "{:.3g} : {:.3g} ms".format(*milliseconds)
    return Row(goal, what, peer_name, ratio(ours, peer, "wall"), ratio(ours, peer, "cpu"), aim,
               f"{times}; {note}" if note else times)


def verdict(row):
    if row.aim is None:
        return "."
    if row.wall <= row.aim:
        return "reached"
    return f"missed by {100 * (row.wall / row.aim - 1):.0f} %"


def print_row(row):
    cpu = "." if row.cpu is None else f"{row.cpu:.2f}"
    aim = "." if row.aim is None else f"≤ {row.aim:.2f}"
    print(f"| {row.goal} | {row.what} | {row.peer} | {row.wall:.2f} | {cpu} | {aim} "
          f"| {verdict(row)} | {row.note} |", flush=True)


def print_head():
    print("| goal | ours | peer = 1.00 | wall | CPU | aim (wall) | | medians, ours : peer |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
