#!/usr/bin/python3 -B
"""cryptdestroy under faults: still opens, or a second run ends it; never reported done too early."""

from destroying import Destroy
from faultbench import main
from sweep import FULL, KILL, READ_ERROR, WRITE_ERROR, swept


class DestroyTwo(Destroy):
    numbers = (1, 2)
    synced_first = ()


main(
    swept(Destroy, KILL, "cryptdestroy, still opens or a second run ends it"),
    swept(Destroy, FULL, "cryptdestroy, still opens or a second run ends it"),
    swept(Destroy, WRITE_ERROR, "cryptdestroy, still opens or a second run ends it"),
    swept(Destroy, READ_ERROR, "cryptdestroy, still opens or a second run ends it"),
    swept(DestroyTwo, KILL, "cryptdestroy of two devices, each still opens or a second run ends it"),
)
