#!/usr/bin/python3 -B
"""keystore migrate under faults: at every point every device opens, and a second run finishes."""

from faultbench import main
from migrating import Migrate
from rotating import every
from sweep import FULL, KILL, WRITE_ERROR, swept


def tested(fault, stride):
    return swept(Migrate, fault, "keystore migrate into the TPM, a second run finishes", every(stride))


main(
    tested(KILL, 9),
    tested(FULL, 23),
    tested(WRITE_ERROR, 19),
)
