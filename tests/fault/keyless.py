"""The scenario of cryptformat with the keystore: no key file, and the wrapped key in the header."""

import os

from faultbench import (
    FOREIGN_TAB,
    HEADER_SIZE,
    Broken,
    Tree,
    check,
    data_is_untouched,
    is_luks,
    must,
    nothing_is_left_over,
    opens,
    read_part,
    table_is_old_or_new,
)
from formatting import Format
from keystoring import directory, recover


class KeylessTree(Tree):
    """Lines of devices that only the keystore opens."""

    def line(self, number=1):
        return f"{self.name(number)}  {self.link(number)}  none  luks,noauto\n"


def opens_by_keystore(tree, place):
    """By jose, the KEK's file and cryptsetup."""
    key = tree.root.parent / f"{tree.root.name}.{os.path.basename(place)}.key"
    recover(tree, place, key)
    return opens(place, key)


class FormatKeyless(Format):
    """cryptformat of an empty device while the keystore is enabled."""

    synced_first = ("etc/cryptconf/pending",)

    def __init__(self, scratch):
        tree = KeylessTree.make(scratch / "template")
        self.prepare(tree)
        must(*tree.command("--yes", "keystore", "enable"))
        super().__init__(tree)
        self.kek = (directory(tree) / "1.kek").read_bytes()

    def prepare(self, tree):
        """What this machine has before the keystore."""

    def opens(self, tree, place):
        return opens_by_keystore(tree, place)

    def inspect(self, tree, done, call, fault):
        data_is_untouched(tree)
        table_is_old_or_new(tree, FOREIGN_TAB, 1)
        check(not list((tree.conf / "keys").iterdir()), "a key file was made")
        check((directory(tree) / "1.kek").read_bytes() == self.kek, "the keystore was written to")
        if is_luks(tree.image()):
            check(self.opens(tree, tree.image()), "it is LUKS, but the keystore does not open it")
        if tree.backup().exists():
            check(self.opens(tree, tree.backup()), "the keystore does not open the backup")
        if done.status == 0:
            self.is_done(tree)
        self.ends_well(tree, done, call, fault)

    def is_done(self, tree):
        """All that exit status 0 promises."""
        check(tree.backup().exists(), "there is no header backup")
        check(
            tree.backup().read_bytes() == read_part(tree.image(), 0, HEADER_SIZE),
            "the header backup differs from the header",
        )
        check(self.opens(tree, tree.image()), "the keystore does not open the device")
        check(tree.line() in tree.tab(), f"crypttab: {tree.tab()}")
        nothing_is_left_over(tree)

    def again(self, tree, unsynced):
        try:
            self.is_done(tree)
            expected = 5
        except Broken:
            expected = 0
        done = self.second(tree, unsynced)
        check(done.status == expected, f"the second run: {done}")
        self.is_done(tree)
        data_is_untouched(tree)
