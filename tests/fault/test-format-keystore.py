#!/usr/bin/python3 -B
"""cryptformat with the keystore under faults: what is LUKS opens by the keystore at every point."""

from faultbench import check, main, must
from keyless import FormatKeyless, KeylessTree
from mounts import private_mounts, read_only
from sweep import FULL, KILL, READ_ERROR, STAYS_FULL, WRITE_ERROR, one_in, swept


def tested(fault, stride):
    return swept(FormatKeyless, fault, "cryptformat with the keystore, a second run finishes", one_in(stride))


def enabled(scratch):
    tree = KeylessTree.make(scratch / "tree")
    must(*tree.command("--yes", "keystore", "enable"))
    return tree


def keystore_out_of_reach(scratch):
    """cryptformat touches nothing when the keystore cannot wrap, whatever is missing of it"""
    tree = enabled(scratch)
    (tree.conf / "keystore/1.kek").rename(scratch / "kek")
    before = tree.fingerprint()
    done = tree.qs("cryptformat", "--no-open", tree.link())
    check(done.status == 2 and "the keystore wraps no key now" in done.err, f"{done}")
    check(tree.fingerprint() == before, "something was written")


def read_only_etc(scratch):
    """cryptformat with the keystore where /etc cannot be written touches nothing"""
    tree = enabled(scratch)
    before = tree.fingerprint()
    with read_only(tree.root / "etc"):
        done = tree.qs("cryptformat", "--no-open", tree.link())
    check(done.status == 1 and "Read-only" in done.err, f"{done}")
    check(tree.fingerprint() == before, "something was written")


private_mounts()
main(
    keystore_out_of_reach,
    read_only_etc,
    tested(KILL, 5),
    tested(FULL, 12),
    tested(WRITE_ERROR, 10),
    tested(STAYS_FULL, 12),
    tested(READ_ERROR, 20),
)
