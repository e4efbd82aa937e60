#!/usr/bin/python3 -B
"""keystore rotate and migrate with a TPM under faults: at every point every device opens, and a
second run finishes."""

from faultbench import check, main
from migrating import IntoTpm, OutOfTpm, RotateSealed
from mounts import private_mounts, read_only
from rotating import every
from sweep import FULL, KILL, READ_ERROR, WRITE_ERROR, swept_by


def tested(scenario, kill, fail, read):
    what = f"{scenario.__name__}, every device opens and a second run finishes"
    strides = ((KILL, kill), (FULL, fail), (WRITE_ERROR, fail), (READ_ERROR, read))
    return swept_by(scenario, what, *((fault, every(stride)) for fault, stride in strides))


def read_only_etc(scratch):
    """rotating and migrating where /etc cannot be written changes nothing, and is done afterwards"""
    for scenario in (IntoTpm, OutOfTpm, RotateSealed):
        (scratch / scenario.__name__).mkdir()
        s = scenario(scratch / scenario.__name__)
        tree = s.template
        s.use_tpm(tree)
        before = tree.fingerprint("var")
        with read_only(tree.root / "etc"):
            done = tree.qs(*s.words)
        check(done.status == 1 and "Read-only" in done.err, f"{scenario.__name__}: {done}")
        check(tree.fingerprint("var") == before, f"{scenario.__name__}: something changed")
        s.everything_opens(tree)
        s.again(tree, None)
        s.stop()


private_mounts()
main(
    read_only_etc,
    tested(IntoTpm, 13, 29, 200),
    tested(OutOfTpm, 17, 37, 200),
    tested(RotateSealed, 17, 37, 200),
)
