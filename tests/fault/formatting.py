"""The scenario of cryptformat, for the tests that sweep it."""

from faultbench import (
    FOREIGN_TAB,
    Broken,
    backup_is_whole,
    check,
    content,
    data_is_untouched,
    header_has_its_key,
    is_formatted,
    key_is_whole,
    table_is_old_or_new,
)
from sweep import Scenario


class Format(Scenario):
    """cryptformat of empty devices."""

    numbers = (1,)
    synced_first = ("etc/cryptconf/keys", "etc/cryptconf/pending")

    def __init__(self, template):
        super().__init__(template)
        links = [template.link(number) for number in self.numbers]
        self.words = ("cryptformat", "--no-open", *links)
        self.gates = self.numbers

    def inspect(self, tree, done, call, fault):
        data_is_untouched(tree, *self.numbers)
        table_is_old_or_new(tree, FOREIGN_TAB, *self.numbers)
        for number in self.numbers:
            key_is_whole(tree, number)
            header_has_its_key(tree, number)
            backup_is_whole(tree, number)
        if done.status == 0:
            is_formatted(tree, FOREIGN_TAB, *self.numbers)
        self.ends_well(tree, done, call, fault)

    def ends_well(self, tree, done, call, fault):
        if fault.kills:
            return
        check(done.status in range(8), "ends in no orderly way")
        check(done.status == 0 or done.err.startswith("qs-util cryptformat: "), "says nothing")
        if "fsync" in call.name and "/run/" not in call.path:
            check(done.status != 0, "exit status 0 though a sync failed")
        if "unlink" not in call.name:
            check(not tree.leftovers(), f"left over: {tree.leftovers()}")

    def again(self, tree, unsynced):
        keys = {number: content(tree.key(number)) for number in self.numbers}
        finished = is_finished(tree, *self.numbers)
        done = self.second(tree, unsynced)
        check(done.status == (5 if finished else 0), f"the second run: {done}")
        for number in self.numbers:
            check(keys[number] in (None, content(tree.key(number))), "the second run made another key")
        is_formatted(tree, FOREIGN_TAB, *self.numbers)
        data_is_untouched(tree, *self.numbers)


def is_finished(tree, *numbers):
    try:
        is_formatted(tree, FOREIGN_TAB, *numbers)
    except Broken:
        return False
    return True


class FormatTwo(Format):
    """Two devices at once; both workers are hit at the same point."""

    numbers = (1, 2)
    synced_first = ()

    def again(self, tree, unsynced):
        # One device may be finished and the other not: then the finished one is refused (7).
        keys = {number: content(tree.key(number)) for number in self.numbers}
        finished = [is_finished_alone(tree, number) for number in self.numbers]
        done = self.second(tree, unsynced)
        wanted = 5 if all(finished) else 7 if any(finished) else 0
        check(done.status == wanted, f"the second run (finished before: {finished}): {done}")
        for number in self.numbers:
            check(keys[number] in (None, content(tree.key(number))), "the second run made another key")
        is_formatted(tree, FOREIGN_TAB, *self.numbers)
        data_is_untouched(tree, *self.numbers)


def is_finished_alone(tree, number):
    """Key, header, backup and line are there; only its journal may keep a device unfinished."""
    return (
        tree.backup(number).exists()
        and tree.line(number) in tree.tab()
        and f"{tree.name(number)}.json" not in tree.journals()
    )
