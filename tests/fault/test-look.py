#!/usr/bin/python3 -B
"""Commands that only look (cryptopen --test, cryptopenall --test, cryptstatus, devicemap), with
EIO at every reading call: no hang, no false "no key", and not a byte changes."""

from faultbench import Tree, check, main, must
from sweep import READ_ERROR, Scenario, swept


class Look(Scenario):
    gates = ()
    allowed = (0, 1, 2, 3, 4, 6, 7, 78, 127)

    def __init__(self, scratch):
        tree = Tree.make(scratch / "template")
        must(*tree.command("cryptformat", "--no-open", tree.link()))
        super().__init__(tree)
        self.before = tree.fingerprint()

    def inspect(self, tree, done, call, fault):
        check(done.status in self.allowed, "ends in no orderly way")
        check(tree.fingerprint() == self.before, "a file changed")
        check("no key opens" not in done.err, "a read error is reported as a wrong key")

    def again(self, tree, unsynced):
        done = tree.qs(*self.words)
        check(done.status == 0, f"the second run: {done}")


class OpenTest(Look):
    words = ("cryptopen", "--test", "/dev/disk/by-id/scsi-30001")

    def inspect(self, tree, done, call, fault):
        super().inspect(tree, done, call, fault)
        check(done.status != 0 or "proven" in done.out, "success without a proof")


class OpenAllTest(Look):
    words = ("cryptopenall", "--test")


class Status(Look):
    words = ("cryptstatus", "/dev/disk/by-id/scsi-30001")


class StatusOfAll(Look):
    words = ("cryptstatus",)


class Devicemap(Look):
    words = ("--json", "devicemap", "--all")


main(
    *(
        swept(scenario, READ_ERROR, f"{' '.join(scenario.words).split(' /')[0]}, changes nothing")
        for scenario in (OpenTest, OpenAllTest, Status, StatusOfAll, Devicemap)
    )
)
