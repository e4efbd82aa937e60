#!/usr/bin/python3 -B
"""Every command that changes something: where /etc cannot be written, and twice at once."""

from faultbench import Run, check, in_parallel, main, remove
from mounts import private_mounts, read_only
from scenarios import SCENARIOS
from sweep import Call, Fault

ROUNDS = 3
NOWHERE = Call("main", "none", 0, "", "", 0)
# What two runs at once leave is judged as after a kill: neither run says what the other did.
TOGETHER = Fault("twice at once", "as if by SIGKILL", None)
# Not opened without a kernel; there tests/guest/open-faults.bats has both.
NEEDS_KERNEL = {"cryptopen"}
# Their results lie in /var.
WRITES_ELSEWHERE = {"keybackup"}
# What a rotation that failed leaves for status.
RECORD = {"keystore-rotate": ["var"]}


def under_read_only_etc(name, make):
    def test(scratch):
        scenario = make(scratch)
        tree = scenario.template
        record = RECORD.get(name, [])
        before = tree.fingerprint(*record)
        with read_only(tree.root / "etc"):
            done = tree.qs(*scenario.words)
        check(done.status == 1, f"not refused: {done}")
        check("Read-only file system" in done.err, f"does not say why: {done}")
        check(tree.fingerprint(*record) == before, "something changed")

    test.__name__ = f"{name}/read-only"
    test.__doc__ = f"R: {name}, /etc read-only: 1, told, and nothing changes"
    return test


def twice_at_once(name, make):
    def test(scratch):
        scenario = make(scratch)
        ends = []
        for attempt in range(ROUNDS):
            tree = scenario.template.copy(scratch / f"at-once-{attempt}")
            runs = in_parallel(lambda words, tree=tree: tree.qs(*words), [scenario.words] * 2, 2)
            statuses = sorted(done.status for _, done in runs)
            said = [str(done) for _, done in runs]
            # 7: of two devices each run had one.
            check(set(statuses) & {0, 7}, f"none succeeds: {said}")
            check(set(statuses) <= {0, 1, 4, 5, 6, 7}, f"{said}")
            scenario.inspect(tree, Run(-9), NOWHERE, TOGETHER)
            scenario.again(tree, None)
            ends.append("+".join(map(str, statuses)))
            remove(tree.root)
        return " ".join(ends)

    test.__name__ = f"{name}/twice"
    test.__doc__ = f"2: {name} twice at once: one succeeds, all is whole, another run finishes"
    return test


private_mounts()
ALONE = {name: make for name, make in SCENARIOS.items() if name not in NEEDS_KERNEL}
main(
    *(under_read_only_etc(name, make) for name, make in ALONE.items() if name not in WRITES_ELSEWHERE),
    *(twice_at_once(name, make) for name, make in ALONE.items()),
)
