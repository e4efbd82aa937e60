#!/usr/bin/python3 -B
"""Keys of a Vault server's for some devices only, under faults: a device is formatted with one,
changed to one and taken back. At every point every device opens, and a second run finishes."""

from faultbench import check, main
from keying import Change, FormatKey, Revert
from mounts import private_mounts, read_only
from rotating import every
from sweep import FULL, KILL, READ_ERROR, WRITE_ERROR, swept_by


def tested(scenario, kill, full, write, read):
    """One server for all faults."""
    what = f"{scenario.__name__} of a key, every device opens and a second run finishes"
    pairs = zip((KILL, FULL, WRITE_ERROR, READ_ERROR), (kill, full, write, read))
    return swept_by(scenario, what, *pairs)


def read_only_places(scratch):
    """changing a key where /etc or the disk cannot be written changes nothing, and is done afterwards"""
    s = Change(scratch)
    tree = s.template
    try:
        for place in ("etc", "img/d1"):
            before = tree.fingerprint("var", "etc") if place == "img/d1" else tree.fingerprint("var")
            with read_only(tree.root / place):
                done = tree.qs(*s.words)
            check(done.status in (1, 4, 7) and "read-only" in done.err.lower(), f"{place}: {done}")
            after = tree.fingerprint("var", "etc") if place == "img/d1" else tree.fingerprint("var")
            check(after == before, f"{place}: something changed")
            s.everything_opens(tree)
        s.again(tree, None)
    finally:
        s.stop()


private_mounts()
main(
    read_only_places,
    tested(Change, every(4), every(7), every(9), every(150)),
    tested(Revert, every(4), every(7), every(9), every(150)),
    tested(FormatKey, every(13), every(29), every(37), every(150)),
)
