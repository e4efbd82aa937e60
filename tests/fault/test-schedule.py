#!/usr/bin/python3 -B
"""What the keystore does by itself under faults: its file stays whole, and no generation goes
before what names it, or is left by a second run."""

from faultbench import check, main
from keystoring import files
from mounts import private_mounts, read_only
from rotating import every, store
from scheduling import Retiring, Schedule
from sweep import FULL, KILL, READ_ERROR, WRITE_ERROR, one_in, swept


def tested(scenario, fault, choose):
    return swept(scenario, fault, f"keystore {scenario.__name__.lower()}, a second run finishes", choose)


def read_only_etc(scratch):
    """schedule where /etc cannot be written changes nothing"""
    tree = Schedule(scratch).template
    with read_only(tree.root / "etc"):
        done = tree.qs(*Schedule.words)
    check(done.status == 1 and "Read-only" in done.err, f"{done}")
    check(store(tree)["schedule"]["every"] == "1Y" and files(tree) == ["1.kek", "keystore.json"], "something changed")


private_mounts()
main(
    read_only_etc,
    tested(Schedule, KILL, one_in(4)),
    tested(Schedule, FULL, one_in(4)),
    tested(Schedule, WRITE_ERROR, one_in(4)),
    tested(Schedule, READ_ERROR, one_in(16)),
    tested(Retiring, KILL, every(6)),
    tested(Retiring, FULL, every(6)),
    tested(Retiring, WRITE_ERROR, every(9)),
)
