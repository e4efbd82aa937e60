"""The scenarios of what the keystore does by itself: a schedule is set; a rotation is due, or fails
and is remembered; a purge retires generations."""

import json

from faultbench import SECOND_AT, Tree, check, must, read_part
from keystoring import Store, directory, files
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


class Due(Rotate):
    """The timer's run begins a rotation, and the next ones go on with it."""

    words = ("keystore", "rotate", "--if-due")

    def __init__(self, scratch):
        super().__init__(scratch)
        must(*self.template.command("keystore", "schedule", "1D"))
        now = store(self.template)
        del now["sum"]
        now["schedule"]["since"] = now["generations"][0]["created"] = "2026-01-01T00:00:00Z"
        (directory(self.template) / "keystore.json").write_text(json.dumps(now), encoding="ascii")

    def second(self, tree, _unsynced):
        """A run with nothing to do syncs nothing: what a power cut takes back is to be done again."""
        return super().second(tree, None)


def record(tree):
    return tree.root / "var/lib/qs-util/rotation.json"


def record_writing(choose):
    """Of the points that CHOOSE takes, those of the record."""
    return lambda tree, call: "/var/" in call.path and choose(tree, call)


class Failing(Due):
    """Device 2 is damaged: the rotation fails, and that is remembered, whole or not at all."""

    expected = 7
    damaged = 2

    def __init__(self, scratch):
        super().__init__(scratch)
        image = self.template.image(self.damaged)
        self.whole = image.read_bytes()[: 2 * SECOND_AT]
        with image.open("r+b") as disk:
            disk.seek(4096)
            disk.write(bytes(SECOND_AT))

    def generation(self, tree, place):
        """None of what is damaged now."""
        damaged = place == tree.image(self.damaged) and not any(read_part(place, 4096, 4096))
        return None if damaged else super().generation(tree, place)

    def inspect(self, tree, done, call, fault):
        self.everything_opens(tree)
        status = tree.qs("--json", "keystore", "status")
        check(status.status == 0, f"status: {status}")
        told = json.loads(status.out)["result"].get("last_error", {}).get("message")
        check(told is None or "1 device could not be brought to generation 2" in told, f"last error: {told}")
        if not fault.kills:
            check(done.status == 7, "the record decides about the exit status")
            check(told or "rotation.json" in done.err or "/var" in done.err, "the record is lost, and nobody told")

    def again(self, tree, unsynced):
        with tree.image(self.damaged).open("r+b") as disk:
            disk.write(self.whole)
        super().again(tree, unsynced)
        kept_now = sorted(path.name for path in record(tree).parent.glob("*"))
        check(not kept_now, f"after a rotation that went well there is still {kept_now}")


class FailingAgain(Failing):
    """The same where an earlier failure is remembered."""

    def __init__(self, scratch):
        super().__init__(scratch)
        done = self.template.qs(*self.words)
        check(done.status == 7 and record(self.template).exists(), f"{done}")

    def inspect(self, tree, done, call, fault):
        super().inspect(tree, done, call, fault)
        check(json.loads(record(tree).read_text(encoding="ascii"))["failed"] > 0, "neither the old nor the new record")


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
