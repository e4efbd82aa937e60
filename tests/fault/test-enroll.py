#!/usr/bin/python3 -B
"""cryptenroll under faults: its key file and other people's keys open the device at every point,
a second run finishes, and what was revoked opens nothing."""

from enrolling import NewKey, Recovery, Wipe
from faultbench import main
from sweep import FULL, KILL, READ_ERROR, STAYS_FULL, WRITE_ERROR, one_in, swept

SAMPLE = one_in(8)


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
    enrolled(NewKey, FULL, SAMPLE),
    enrolled(NewKey, WRITE_ERROR, SAMPLE),
    # A look that fails must not pass for a file that is absent.
    enrolled(NewKey, READ_ERROR, lambda tree, call: call.name == "faccessat2" or SAMPLE(tree, call)),
    enrolled(Recovery, READ_ERROR, SAMPLE),
    enrolled(Recovery, STAYS_FULL, SAMPLE),
    enrolled(Wipe, FULL, SAMPLE),
)
