#!/usr/bin/python3 -B
"""What the keystore does by itself under faults: its file stays whole, and no generation goes
before what names it, or is left by a second run."""

from faultbench import check, main
from keystoring import files
from mounts import private_mounts, read_only
from rotating import every, store
from scheduling import Due, Failing, FailingAgain, Retiring, Schedule, record, record_writing
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


def read_only_var(scratch):
    """a rotation that fails where /var cannot be written says both, and keeps its exit status"""
    tree = Failing(scratch).template
    (tree.root / "var/lib").mkdir(parents=True, exist_ok=True)
    with read_only(tree.root / "var"):
        done = tree.qs(*Failing.words)
    check(done.status == 7 and "Read-only" in done.err and "could not be brought" in done.err, f"{done}")
    check(not record(tree).exists(), "there is a record")


private_mounts()
main(
    read_only_etc,
    read_only_var,
    tested(Schedule, KILL, one_in(4)),
    tested(Schedule, FULL, one_in(4)),
    tested(Schedule, WRITE_ERROR, one_in(4)),
    tested(Schedule, READ_ERROR, one_in(16)),
    tested(Retiring, KILL, every(6)),
    tested(Retiring, FULL, every(6)),
    tested(Retiring, WRITE_ERROR, every(9)),
    tested(Due, KILL, every(7)),
    tested(Due, FULL, every(13)),
    tested(Due, WRITE_ERROR, every(13)),
    tested(Due, READ_ERROR, every(60)),
    tested(Failing, KILL, record_writing(every(3))),
    tested(Failing, FULL, record_writing(every(3))),
    tested(Failing, WRITE_ERROR, record_writing(every(3))),
    tested(FailingAgain, KILL, record_writing(every(3))),
    tested(FailingAgain, READ_ERROR, record_writing(every(3))),
)
