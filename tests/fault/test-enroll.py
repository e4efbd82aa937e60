#!/usr/bin/python3 -B
"""cryptenroll under faults: its key file and other people's keys open the device at every point,
a second run finishes, and what was revoked opens nothing."""

from enrolling import NewKey, Recovery, Wipe
from faultbench import main
from sweep import FULL, KILL, READ_ERROR, WRITE_ERROR, swept


def enrolled(scenario, fault):
    return swept(scenario, fault, f"cryptenroll {scenario.option}, opens at every point and a second run finishes")


main(
    enrolled(Recovery, KILL),
    enrolled(Recovery, FULL),
    enrolled(Recovery, WRITE_ERROR),
    enrolled(Wipe, KILL),
    enrolled(Wipe, WRITE_ERROR),
    enrolled(Wipe, READ_ERROR),
    enrolled(NewKey, KILL),
)
