#!/usr/bin/python3 -B
"""The retention time under faults: a device of the keystore is destroyed only when what brings it
back is whole, comes back, and is purged for good by a second run at the latest."""

from faultbench import main
from retaining import Purge, Retire, Revive
from sweep import FULL, KILL, READ_ERROR, WRITE_ERROR, one_in, swept

SAMPLED = one_in(16)


def tested(scenario, fault, choose=None):
    what = f"{scenario.__name__.lower()}, nothing is lost and a second run finishes"
    return swept(scenario, fault, what, choose)


main(
    tested(Retire, KILL, one_in(6)),
    tested(Retire, FULL, one_in(8)),
    tested(Retire, WRITE_ERROR, SAMPLED),
    tested(Retire, READ_ERROR, SAMPLED),
    tested(Revive, KILL, one_in(10)),
    tested(Revive, WRITE_ERROR, SAMPLED),
    tested(Purge, KILL, one_in(4)),
    tested(Purge, WRITE_ERROR, one_in(6)),
    tested(Purge, READ_ERROR, SAMPLED),
)
