"""The scenarios of cryptenroll: a recovery key added, revoked, the key file replaced."""

import json
import shutil

from faultbench import (
    FOREIGN_TAB,
    HEADER_SIZE,
    Tree,
    Broken,
    check,
    copied,
    data_is_untouched,
    key_is_whole,
    must,
    nothing_is_left_over,
    opens,
    read_part,
)
from sweep import Scenario


def metadata(image):
    with copied(image) as copy:
        return json.loads(must("cryptsetup", "luksDump", "--dump-json-metadata", copy).out)


class Enroll(Scenario):
    """A formatted device with a keyslot of somebody else's. Its key file opens it at every point."""

    def __init__(self, scratch):
        tree = Tree.make(scratch / "template")
        must(*tree.command("cryptformat", "--no-open", tree.link()))
        self.foreign = scratch / "foreign"
        self.foreign.write_text("somebody else's")
        cheap = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
        must("cryptsetup", "luksAddKey", "-q", *cheap, "--key-file", tree.key(), tree.image(), self.foreign)
        must(*tree.command("cryptbackup", tree.link()))
        self.recovery = tree.root / "var/recovery"
        super().__init__(tree)
        self.prepare(tree)
        self.tab = tree.tab()
        self.slot = metadata(tree.image())["keyslots"]["1"]
        self.area = self.read_area(tree)

    def prepare(self, tree):
        """What the device has besides."""

    def read_area(self, tree):
        return read_part(tree.image(), int(self.slot["area"]["offset"]), int(self.slot["area"]["size"]))

    def inspect(self, tree, done, call, fault):
        data_is_untouched(tree)
        check(tree.tab() == self.tab, "crypttab changed")
        key_is_whole(tree)
        check(opens(tree.image(), tree.key()), "its key file does not open the device")
        check(self.read_area(tree) == self.area, "the slot of somebody else changed")
        check(opens(tree.backup(), tree.key()), "its key file does not open the header backup")
        if done.status == 0:
            self.finished(tree)
        if fault.kills:
            return
        self.ends_orderly(done, call)

    def finished(self, tree):
        """All that exit status 0 promises."""
        check(opens(tree.image(), self.foreign), "the key of somebody else does not open the device")
        check(metadata(tree.image())["keyslots"]["1"] == self.slot, "the slot of somebody else changed")
        check(
            tree.backup().read_bytes() == read_part(tree.image(), 0, HEADER_SIZE),
            "the header backup differs from the header",
        )
        nothing_is_left_over(tree)

    def is_finished(self, tree):
        try:
            self.finished(tree)
        except Broken:
            return False
        return True

    def again(self, tree, unsynced):
        finished = self.is_finished(tree)
        done = self.second(tree, unsynced)
        check(done.status in ({0, self.when_done} if finished else {0}), f"the second run: {done}")
        self.finished(tree)
        data_is_untouched(tree)
        check(self.read_area(tree) == self.area, "the slot of somebody else changed")
        status = json.loads(tree.qs("--json", "cryptstatus", tree.link()).out)["devices"][0]
        check(status["backup"]["agrees"] and "warnings" not in status, f"cryptstatus: {status}")

    def backups(self, tree):
        return [path for path in (tree.conf / "headers").rglob("*.header") if path.is_file()]


class Recovery(Enroll):
    """A recovery key into a file."""

    option = "--recovery-key"
    when_done = 5  # the file is there

    def prepare(self, tree):
        self.words = ("cryptenroll", tree.link(), "--recovery-key", "/var/recovery")

    def finished(self, tree):
        super().finished(tree)
        key = tree.root / "var/recovery"
        check(key.exists() and key.stat().st_mode & 0o7777 == 0o400, "there is no private recovery key")
        check(opens(tree.image(), key), "the recovery key does not open the device")
        check(opens(tree.backup(), key), "the recovery key does not open the backup")
        found = metadata(tree.image())
        check(sorted(found["keyslots"]) == ["0", "1", "2"], f"keyslots: {sorted(found['keyslots'])}")
        marks = [token["keyslots"] for token in found["tokens"].values() if token["type"] == "systemd-recovery"]
        check(marks == [["2"]], f"recovery tokens: {marks}")


class Wipe(Enroll):
    """A recovery key is revoked; backups of several ages hold it."""

    option = "--wipe"
    when_done = 1  # there is nothing to wipe

    def prepare(self, tree):
        self.words = ("--yes", "cryptenroll", tree.link(), "--wipe", "recovery")
        must(*tree.command("cryptenroll", tree.link(), "--recovery-key", "/var/recovery"))
        self.revoked = tree.root.parent / "revoked"
        shutil.move(tree.root / "var/recovery", self.revoked)
        shutil.copy(tree.backup(), tree.conf / f"headers/{tree.name()}.d/3.header")
        check(opens(tree.image(), self.revoked), "the saved recovery key is of no use")

    def finished(self, tree):
        super().finished(tree)
        check(not opens(tree.image(), self.revoked), "the revoked key opens the device")
        for backup in self.backups(tree):
            check(not opens(backup, self.revoked), f"the revoked key opens {backup.name}")
        found = metadata(tree.image())
        check(sorted(found["keyslots"]) == ["0", "1"], f"keyslots: {sorted(found['keyslots'])}")
        check(len(found["tokens"]) == 1, f"tokens: {found['tokens']}")


class NewKey(Enroll):
    """The key file is replaced."""

    option = "--new-key"
    when_done = 0  # that is another replacement
    synced_first = ("etc/cryptconf/keys", "etc/cryptconf/pending")

    def prepare(self, tree):
        self.words = ("cryptenroll", tree.link(), "--new-key")
        self.revoked = tree.root.parent / "revoked"
        shutil.copy(tree.key(), self.revoked)

    def finished(self, tree):
        super().finished(tree)
        names = sorted(path.name for path in (tree.conf / "keys").iterdir())
        check(names == [tree.key().name], f"key files: {names}")
        check(opens(tree.image(), tree.key()), "the new key does not open the device")
        check(not opens(tree.image(), self.revoked), "the old key opens the device")
        for backup in self.backups(tree):
            check(not opens(backup, self.revoked), f"the old key opens {backup.name}")
        found = metadata(tree.image())
        check(len(found["keyslots"]) == 2, f"keyslots: {sorted(found['keyslots'])}")
