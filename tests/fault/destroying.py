"""The scenario of cryptdestroy, for the tests that sweep it."""

import shutil

from faultbench import (
    DATA_AT,
    FOREIGN_TAB,
    Tree,
    check,
    data_is_untouched,
    is_destroyed,
    must,
    opens,
    read_part,
    table_is_old_or_new,
)
from sweep import Scenario


class Destroy(Scenario):
    """cryptdestroy of formatted devices, one of them with an older header backup."""

    numbers = (1,)
    synced_first = ("etc/cryptconf/pending",)

    def __init__(self, scratch):
        tree = Tree.make(scratch / "template", len(self.numbers))
        (tree.conf / "qs-util.conf").write_text("workers = 2;\n")
        links = [tree.link(number) for number in self.numbers]
        must(*tree.command("cryptformat", "--no-open", *links))
        versions = tree.conf / f"headers/{tree.name()}.d"
        versions.mkdir(mode=0o700)
        shutil.copy(tree.backup(), versions / "1.header")
        self.prepare(tree)
        super().__init__(tree)
        self.words = ("cryptdestroy", "--yes", *links)
        self.gates = self.numbers
        self.keys = {}
        self.heads = {}
        for number in self.numbers:
            self.keys[number] = scratch / f"key-{number}"
            shutil.copy(tree.key(number), self.keys[number])
            self.heads[number] = read_part(tree.image(number), 0, DATA_AT)
            self.saved_key_opens(tree, number)

    def prepare(self, tree):
        """What the devices have besides."""

    def saved_key_opens(self, tree, number):
        """The pre-image: without it the judgement "nothing opens it" would mean nothing."""
        check(opens(tree.image(number), self.keys[number]), "the saved key is of no use")

    def inspect(self, tree, done, call, fault):
        data_is_untouched(tree, *self.numbers)
        table_is_old_or_new(tree, FOREIGN_TAB, *self.numbers)
        if done.status == 0:
            is_destroyed(tree, FOREIGN_TAB, self.keys, *self.numbers)
            return
        for number in self.numbers:
            self.opens_or_is_pending(tree, number)
        if not fault.kills:
            check(done.status in range(8), "ends in no orderly way")
            check("qs-util cryptdestroy: " in done.err, "says nothing")

    def opens_or_is_pending(self, tree, number):
        """Not done: the device still opens with the key beside it, or a journal says that the
        destroy is unfinished, or nothing of it is left but what the tables and locks need."""
        if opens(tree.image(number), tree.key(number)):
            return
        pending = f"{tree.name(number)}.json" in tree.journals()
        gone = not tree.key(number).exists() and not opens(tree.image(number), self.keys[number])
        check(pending or gone, f"d{number} opens no more, and nothing says that it is being destroyed")

    def again(self, tree, unsynced):
        finished = [self.is_finished(tree, number) for number in self.numbers]
        done = self.second(tree, unsynced)
        wanted = 4 if all(finished) else 7 if any(finished) else 0
        check(done.status == wanted, f"the second run (finished before: {finished}): {done}")
        is_destroyed(tree, FOREIGN_TAB, self.keys, *self.numbers)
        data_is_untouched(tree, *self.numbers)

    @staticmethod
    def is_finished(tree, number):
        """Then the second run finds nothing to destroy."""
        return (
            not tree.key(number).exists()
            and not tree.backup(number).exists()
            and f"{tree.name(number)}.json" not in tree.journals()
        )
