"""The scenario of cryptopen updatecrypttab, which needs a kernel with device-mapper."""

from faultbench import FOREIGN_TAB, Tree, check, content, data_is_untouched, must, opens, read_part, table_is_old_or_new
from faultbench import HEADER_SIZE
from sweep import Scenario


class OpenUpdating(Scenario):
    """cryptopen updatecrypttab of a device that has no line yet."""

    def __init__(self, scratch):
        tree = Tree.make(scratch / "template")
        must(*tree.command("cryptformat", "--no-open", "--no-crypttab", tree.link()))
        super().__init__(tree)
        self.words = ("cryptopen", tree.link(), "updatecrypttab")
        self.key = content(tree.key())
        self.backup = content(tree.backup())
        self.header = read_part(tree.image(), 0, HEADER_SIZE)

    def inspect(self, tree, done, call, fault):
        data_is_untouched(tree)
        table_is_old_or_new(tree, FOREIGN_TAB, 1)
        check(content(tree.key()) == self.key, "the key changed")
        check(content(tree.backup()) == self.backup, "the header backup changed")
        check(read_part(tree.image(), 0, HEADER_SIZE) == self.header, "the header changed")
        check(opens(tree.image(), tree.key()), "stock cryptsetup does not open it")
        if done.status == 0:
            check(tree.tab() == FOREIGN_TAB + tree.line(), "success, but crypttab has no line of the device")

    def again(self, tree, unsynced):
        """There is no device-mapper for a second run of the same: what it needs is still good."""
        done = tree.qs("cryptopen", "--test", tree.link())
        check(done.status == 0, f"cryptopen --test: {done}")
