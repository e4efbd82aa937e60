#!/usr/bin/python3 -B
"""keystores that rotate at key servers, and move to them and between them, under faults: killed at
changing calls and at messages to the servers, with disks that are full or fail. At every point every
device opens; a second run finishes, and leaves no key at a server that no record names."""

from faultbench import main
from rotating import every
from served import IntoKmip, KmipIntoVault, Lease, LeaseRenewed, MoveToVault, OutOfVault, RotateAtKmip, RotateAtVault
from sweep import FULL, KILL, READ_ERROR, STAYS_FULL, WRITE_ERROR


def tested(scenario, *strides, onward=None):
    """STRIDES of messages, of calls killed, failing, failing to read."""
    messages, kill, fail, read = strides
    faults = [(KILL, kill), (FULL, fail), (WRITE_ERROR, fail), (READ_ERROR, read), (STAYS_FULL, onward)]

    def test(scratch):
        s = scenario(scratch)
        try:
            notes = [f"{s.kill_exchanges(scratch, kind, messages)} messages to {kind}" for kind in s.kinds]
            notes += [
                f"{fault.label}, {s.sweep(scratch, fault, every(stride))}" for fault, stride in faults if stride
            ]
        finally:
            s.stop()
        return "; ".join(notes)

    test.__name__ = scenario.__name__
    test.__doc__ = f"{scenario.__name__}, every device opens and a second run finishes"
    return test


main(
    tested(RotateAtKmip, 9, 17, 37, 300),
    tested(RotateAtVault, 7, 9, 29, 300),
    tested(IntoKmip, 9, 13, 29, 300),
    tested(KmipIntoVault, 9, 13, 29, 300),
    tested(OutOfVault, 5, 17, 29, 300),
    tested(MoveToVault, 5, 17, 37, 300),
    tested(Lease, 2, 5, 7, 100),
    tested(LeaseRenewed, 3, 3, 5, 9, onward=2),
)
