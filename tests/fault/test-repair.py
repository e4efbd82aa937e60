#!/usr/bin/python3 -B
"""crypttabrepair under faults: the old table or the right one, whole; nothing else ever changes.

A device or key that cannot be read costs its own line and no other, and never makes a good line
go, though --prune is given."""

from faultbench import FOREIGN_TAB, Tree, check, in_parallel, main, must
from mounts import private_mounts, read_only
from sweep import FULL, KILL, READ_ERROR, STAYS_FULL, WRITE_ERROR, Scenario, swept

TABLE = ("etc/crypttab", "etc/.crypttab")  # and what is left over of it
STALE = "enc-scsi-39999  /dev/disk/by-id/scsi-39999  /etc/cryptconf/keys/x.key  luks\n"


def broken(scratch):
    """Two devices: the line of the first names no key, the second has none, and its key is renamed;
    a line of a device that is gone; no fingerprint for the second."""
    tree = Tree.make(scratch / "template", 2)
    (tree.conf / "qs-util.conf").write_text("workers = 1;\n")
    must(*tree.command("cryptformat", "--no-open", "--no-crypttab", tree.link(1), tree.link(2)))
    must("cryptsetup", "token", "remove", "--token-id", "0", tree.image(2))
    tree.key(2).rename(tree.conf / "keys/lost")
    tree.crypttab.write_text(FOREIGN_TAB + STALE + tree.line(1).replace("scsi-30001.key", "gone"))
    return tree


def right_line(tree, number):
    return tree.line(number).replace(f"{tree.name(2)}.key", "lost")


def right_table(tree):
    return FOREIGN_TAB + right_line(tree, 1) + right_line(tree, 2)


class Repair(Scenario):
    words = ("crypttabrepair", "--prune")
    gates = ()

    def __init__(self, scratch):
        super().__init__(broken(scratch))
        self.old = self.template.tab()
        self.rest = self.template.fingerprint(*TABLE)

    def inspect(self, tree, done, call, fault):
        check(tree.fingerprint(*TABLE) == self.rest, "something besides the table changed")
        table, kept = tree.tab(), tree.root / "etc/crypttab.qs-bak"
        check(not kept.exists() or kept.read_text() == self.old, "crypttab.qs-bak is not the old table")
        if done.status == 0:
            check(table == right_table(tree) or self.stale_is_kept(tree, done), f"exit 0, but\n{table}")
        elif fault is READ_ERROR:
            self.no_line_is_lost_or_wrong(tree, table)
        else:
            check(table in (self.old, right_table(tree)), f"neither old nor right:\n{table}")
        if fault.kills:
            return
        check(done.status in range(8), "ends in no orderly way")
        check(done.status == 0 or "qs-util crypttabrepair: " in done.err, "says nothing")
        if "fsync" in call.name and "/run/" not in call.path:
            check(done.status != 0, "exit status 0 though a sync failed")
        if "unlink" not in call.name:
            check(not tree.leftovers(), f"left over: {tree.leftovers()}")

    @staticmethod
    def stale_is_kept(tree, done):
        """Where nobody could look whether its device is there, a line stays, and that is said."""
        return "cannot be looked at" in done.err and tree.tab() == right_table(tree).replace(
            FOREIGN_TAB, FOREIGN_TAB + STALE
        )

    def no_line_is_lost_or_wrong(self, tree, table):
        check(table.startswith(FOREIGN_TAB), "foreign lines changed")
        ours = table[len(FOREIGN_TAB) :].splitlines(keepends=True)
        old = self.old[len(FOREIGN_TAB) :].splitlines(keepends=True)
        good = [right_line(tree, 1), right_line(tree, 2)]
        check(all(line in old + good for line in ours), f"a wrong line:\n{table}")
        check(sum(line.startswith(tree.name(1) + " ") for line in ours) == 1, f"no line for d1:\n{table}")

    def again(self, tree, unsynced):
        done = self.second(tree, unsynced)
        check(done.status == 0, f"the second run: {done}")
        check(tree.tab() == right_table(tree), f"after the second run:\n{tree.tab()}")
        check(tree.fingerprint(*TABLE) == self.rest, "the second run changed something else")
        check(not tree.leftovers(), f"left over: {tree.leftovers()}")


class Proving(Repair):
    """The worker that tries keys; the other one reads headers."""

    fork = 2


class FirstOfWorker:
    """The worker's calls, of the same on one file only the first: each of its points takes seconds."""

    def __init__(self):
        self.seen = set()

    def __call__(self, tree, call):
        known = (call.name, call.path) in self.seen
        self.seen.add((call.name, call.path))
        return call.process == "worker" and not known


def read_only_etc(scratch):
    """R: /etc read-only: 1 and said, --dry-run goes on; then finished"""
    tree = broken(scratch)
    before = tree.fingerprint()
    with read_only(tree.root / "etc"):
        dry = tree.qs("crypttabrepair", "--dry-run")
        done = tree.qs("crypttabrepair")
    check(dry.status == 0 and f"+{right_line(tree, 2)}" in dry.out, f"--dry-run: {dry}")
    check(done.status == 1 and "ead-only" in done.err, f"read-only: {done}")
    check(tree.fingerprint() == before, "something changed")
    done = tree.qs("crypttabrepair", "--prune")
    check(done.status == 0 and tree.tab() == right_table(tree), f"mended: {done}\n{tree.tab()}")


def at_once(scratch):
    """2: six repairs at once: each has its turn, and the table is right"""
    for attempt in range(3):
        tree = broken(scratch / f"t{attempt}")
        commands = [("crypttabrepair", "--prune")] * 6
        runs = in_parallel(lambda words: tree.qs(*words), commands, len(commands))
        check(all(done.status == 0 for _, done in runs), f"{[str(done) for _, done in runs]}")
        check(tree.tab() == right_table(tree), f"the table:\n{tree.tab()}")


private_mounts()
main(
    swept(Repair, KILL, "crypttabrepair, the old table or the right one"),
    swept(Repair, FULL, "crypttabrepair, the old table or the right one"),
    swept(Repair, STAYS_FULL, "crypttabrepair, the old table or the right one"),
    swept(Repair, WRITE_ERROR, "crypttabrepair, the old table or the right one"),
    swept(Repair, READ_ERROR, "crypttabrepair reading headers, no line is lost or wrong"),
    swept(Proving, READ_ERROR, "crypttabrepair trying keys, no line is lost or wrong", FirstOfWorker()),
    read_only_etc,
    at_once,
)
