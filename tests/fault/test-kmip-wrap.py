#!/usr/bin/python3 -B
"""A keystore whose keys stay at a key server, under faults: no key is lost, none is left over there,
and a second run finishes. Kills at every message to the server: test-kmip.py."""

import os

from faultbench import check, main
from mounts import private_mounts, read_only
from rotating import every
from sweep import FULL, KILL, READ_ERROR, WRITE_ERROR, swept
from wrapping import EnableThere, RotateThere, names


def tested(scenario, fault, stride, by=every):
    what = f"{scenario.__name__}, nothing is lost and a second run finishes"
    return swept(scenario, fault, what, by(stride))


def read_by(stride):
    """A link that cannot be read is a device that is away, whose generation stays: no failure."""
    chosen = every(stride)
    return lambda tree, call: call.name != "readlink" and chosen(tree, call)


def read_only_etc(scratch):
    """enabling where /etc cannot be written makes nothing at the server"""
    scenario = EnableThere(scratch)
    tree = scenario.template
    scenario.configure(tree)
    with read_only(tree.root / "etc"):
        done = tree.qs(*scenario.words)
    check(done.status == 1 and "Read-only" in done.err, f"{done}")
    check(names(tree) == [], f"the server has {names(tree)}")
    scenario.again(tree, None)


private_mounts()
# Each point takes a server of its own: what differs little from the provider local only in full.
more = [
    tested(EnableThere, WRITE_ERROR, 17),
    tested(EnableThere, FULL, 17),
    tested(EnableThere, READ_ERROR, 60),
    tested(RotateThere, FULL, 41),
    tested(RotateThere, WRITE_ERROR, 41),
    tested(RotateThere, READ_ERROR, 200, read_by),
]
main(
    read_only_etc,
    tested(EnableThere, KILL, 11),
    tested(RotateThere, KILL, 29),
    *(more if os.environ.get("QS_FAULT_ALL") else []),
)
