#!/usr/bin/python3 -B
"""cryptenroll under faults: its key file and other people's keys open the device at every point,
a second run finishes, and what was revoked opens nothing."""

import os

from enrolling import NewKey, Recovery, Wipe
from faultbench import main
from sweep import FULL, KILL, READ_ERROR, STAYS_FULL, WRITE_ERROR, swept

# The sweeps that differ little from another one take every so manieth point of each kind of
# call; QS_FAULT_ALL=1 takes them all.
STRIDE = 1 if os.environ.get("QS_FAULT_ALL") else 8


def sample():
    return lambda tree, call: call.number % STRIDE == 1 % STRIDE


def enrolled(scenario, fault, choose=None):
    what = f"cryptenroll {scenario.option}, opens at every point and a second run finishes"
    return swept(scenario, fault, what, choose)


main(
    enrolled(Recovery, KILL),
    enrolled(Recovery, FULL),
    enrolled(Recovery, WRITE_ERROR),
    enrolled(Wipe, KILL),
    enrolled(Wipe, WRITE_ERROR),
    enrolled(Wipe, READ_ERROR),
    enrolled(NewKey, KILL),
    enrolled(NewKey, FULL, sample()),
    enrolled(NewKey, WRITE_ERROR, sample()),
    # A look that fails must not pass for a file that is absent.
    enrolled(NewKey, READ_ERROR, lambda tree, call: call.name == "faccessat2" or sample()(tree, call)),
    enrolled(Recovery, READ_ERROR, sample()),
    enrolled(Recovery, STAYS_FULL, sample()),
    enrolled(Wipe, FULL, sample()),
)
