"""The scenarios of what the keystore does by itself: a schedule is set; a purge retires generations."""

from faultbench import Tree, check, must
from keystoring import Store, files
from retaining import kept
from rotating import Rotate, store
from sweep import Scenario


class Schedule(Store):
    """The schedule is the old one or the new one, and keystore.json is whole."""

    words = ("keystore", "schedule", "6W")
    when_done = 0

    def __init__(self, scratch):
        tree = Tree.make(scratch / "template")
        must(*tree.command("--yes", "keystore", "enable"))
        must(*tree.command("keystore", "schedule", "1Y"))
        super().__init__(tree)

    def inspect(self, tree, done, call, fault):
        super().inspect(tree, done, call, fault)
        every = store(tree)["schedule"]["every"]
        check(every in ("1Y", "6W"), f"every {every}")
        check(files(tree) == ["1.kek", "keystore.json"], f"there is {files(tree)}")

    def finished(self, tree):
        check(store(tree)["schedule"]["every"] == "6W", "the schedule is not what was asked for")


class Retiring(Rotate):
    """A purge erases what was kept of a device, and then the generation that nothing else names."""

    words = ("keystore", "purge")

    def __init__(self, scratch):
        tree = Tree.make(scratch / "template", count=2)
        must(*tree.command("cryptformat", "--no-open", tree.link(1), tree.link(2)))
        must(*tree.command("--yes", "keystore", "enable"))
        must(*tree.command("cryptenroll", tree.link(1), tree.link(2), "--keystore"))
        must(*tree.command("--yes", "cryptdestroy", tree.link(1)))
        for _ in range(2):
            must(*tree.command("keystore", "rotate", "--force"))
        (copy,) = kept(tree)
        name, _date, end = copy.name.rsplit(".", 2)
        copy.rename(copy.with_name(f"{name}.20260101T000000Z.{end}"))
        Scenario.__init__(self, tree)

    def everything_opens(self, tree):
        for place in (tree.image(2), tree.backup(2)):
            self.generation(tree, place)
        numbers = [generation["number"] for generation in store(tree)["generations"]]
        check(1 in numbers or "1.kek" not in files(tree), "a generation is there that is not listed")

    def finished(self, tree):
        check(not kept(tree), f"still kept: {kept(tree)}")
        check(files(tree) == ["2.kek", "3.kek", "keystore.json"], f"there is {files(tree)}")
        numbers = [generation["number"] for generation in store(tree)["generations"]]
        check(numbers == [2, 3], f"generations {numbers}")
        check(not tree.leftovers(), f"left over: {tree.leftovers()}")
