"""The scenarios of the retention time: a device of the keystore destroyed, brought back, purged."""

from destroying import Destroy
from faultbench import Tree, check, data_is_untouched, is_luks, must, opens
from keystoring import Store, directory, files, recover
from sweep import Scenario


def kept(tree):
    """What is kept of destroyed devices, but temporaries."""
    return [path for path in (tree.conf / "retired").glob("*") if not path.name.startswith(".")]


def wrapped_key_opens(tree, image):
    """What the keystore wrapped for IMAGE, a device or a header backup, opens it."""
    key = tree.root.parent / f"{tree.root.name}.recovered"
    recover(tree, image, key)
    return opens(image, key)


def enrolled(tree):
    must(*tree.command("--yes", "keystore", "enable"))
    must(*tree.command("cryptenroll", tree.link(), "--keystore"))


def destroyed(scratch):
    """A tree with a device that was destroyed."""
    tree = Tree.make(scratch / "template")
    must(*tree.command("cryptformat", "--no-open", tree.link()))
    enrolled(tree)
    must(*tree.command("--yes", "cryptdestroy", tree.link()))
    check(len(kept(tree)) == 1, f"kept: {kept(tree)}")
    return tree


class Retire(Destroy):
    """cryptdestroy of a device that can be brought back: nothing goes before its copy is whole."""

    synced_first = ("etc/cryptconf/retired", "etc/cryptconf/pending")

    def prepare(self, tree):
        enrolled(tree)

    def inspect(self, tree, done, call, fault):
        super().inspect(tree, done, call, fault)
        if done.status == 0 or not opens(tree.image(), tree.key()):
            self.can_come_back(tree)

    @staticmethod
    def can_come_back(tree):
        check(len(kept(tree)) == 1, f"kept: {kept(tree)}")
        check(wrapped_key_opens(tree, kept(tree)[0]), "what is kept does not open by the keystore")

    def again(self, tree, unsynced):
        super().again(tree, unsynced)
        self.can_come_back(tree)


class Revive(Scenario):
    """cryptrestore of a destroyed device: what was kept goes last."""

    gates = (1,)

    def __init__(self, scratch):
        tree = destroyed(scratch)
        super().__init__(tree)
        self.words = ("--yes", "cryptrestore", tree.link())

    def inspect(self, tree, done, call, fault):
        data_is_untouched(tree, 1)
        if done.status == 0 or (is_luks(tree.image()) and not tree.journals()):
            self.is_back(tree)
            return
        check(len(kept(tree)) == 1, f"kept: {kept(tree)}")
        check(wrapped_key_opens(tree, kept(tree)[0]), "what is kept is not whole")

    @staticmethod
    def is_back(tree):
        check(wrapped_key_opens(tree, tree.image()), "the device does not open by the keystore")
        check(wrapped_key_opens(tree, tree.backup()), "its header backup does not")

    def again(self, tree, unsynced):
        done = self.second(tree, unsynced)
        check(done.status == 0, f"the second run: {done}")
        self.is_back(tree)
        check(not kept(tree), f"still kept: {kept(tree)}")
        check(not tree.journals(), f"still pending: {tree.journals()}")


class Purge(Store):
    """What is kept is erased for good."""

    words = ("--yes", "keystore", "purge", "--all")
    when_done = 0

    def __init__(self, scratch):
        tree = destroyed(scratch)
        self.before = files(tree)
        super().__init__(tree)

    def inspect(self, tree, done, call, fault):
        super().inspect(tree, done, call, fault)
        check(files(tree) == self.before, f"the keystore has {files(tree)}")

    def is_finished(self, tree):
        return not kept(tree)

    def finished(self, tree):
        check(not kept(tree), f"still kept: {kept(tree)}")
        check(directory(tree).exists(), "the keystore went, too")
