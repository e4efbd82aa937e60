#!/usr/bin/python3 -B
"""The keystore under faults: a failed enabling leaves nothing, nothing is erased before its end is
written down, and a device that is enrolled opens by its key file at every point."""

from faultbench import Tree, check, main
from keystoring import Disable, Enable, EnableTpm2, Keystore, files
from mounts import private_mounts, read_only
from rotating import VANISH, Cut, Meddled, Move, Replaced, Rotate, Unplugged, every
from sweep import FULL, KILL, READ_ERROR, STAYS_FULL, WRITE_ERROR, one_in, swept

SAMPLED = one_in(8)


def tested(scenario, fault, choose=None):
    what = f"keystore {scenario.__name__.lower()}, a second run finishes"
    return swept(scenario, fault, what, choose)


def read_only_etc(scratch):
    """enable where /etc cannot be written changes nothing"""
    tree = Tree.make(scratch / "tree")
    with read_only(tree.root / "etc"):
        done = tree.qs(*Enable.words)
    check(done.status == 1 and "Read-only" in done.err, f"{done}")
    check(files(tree) == [], f"there is {files(tree)}")


private_mounts()
main(
    read_only_etc,
    tested(Enable, KILL, one_in(4)),
    tested(Enable, FULL, one_in(6)),
    tested(Enable, WRITE_ERROR, one_in(6)),
    tested(Enable, STAYS_FULL, one_in(6)),
    tested(Enable, READ_ERROR, every(8)),
    tested(EnableTpm2, KILL, SAMPLED),
    tested(EnableTpm2, FULL, SAMPLED),
    tested(EnableTpm2, WRITE_ERROR, SAMPLED),
    tested(EnableTpm2, READ_ERROR, every(8)),
    tested(Disable, KILL, one_in(4)),
    tested(Disable, WRITE_ERROR, one_in(6)),
    tested(Disable, READ_ERROR, SAMPLED),
    tested(Keystore, KILL, SAMPLED),
    tested(Keystore, FULL, SAMPLED),
    tested(Keystore, WRITE_ERROR, SAMPLED),
    tested(Keystore, READ_ERROR, SAMPLED),
    tested(Rotate, KILL, every(9)),
    tested(Rotate, FULL, every(23)),
    tested(Rotate, WRITE_ERROR, every(13)),
    tested(Rotate, READ_ERROR, every(200)),
    tested(Unplugged, VANISH, every(13)),
    tested(Replaced, VANISH, every(13)),
    tested(Cut, VANISH, every(13)),
    tested(Meddled, VANISH, every(7)),
    tested(Move, KILL, every(13)),
    tested(Move, FULL, every(29)),
    tested(Move, WRITE_ERROR, every(29)),
)
