#!/usr/bin/python3 -B
"""cryptswap under faults: the tables are both old, crypttab new and fstab old, or both new; where
crypttab is new no plaintext is left; an error brings the old state back."""

from faultbench import FOREIGN_TAB, MIB, Tree, check, content, main, must, nothing_is_left_over, run
from mounts import private_mounts, read_only
from sweep import FULL, KILL, READ_ERROR, STAYS_FULL, WRITE_ERROR, Scenario, swept

UUID = "11111111-2222-3333-4444-555555555555"
PLAINTEXT = b"what was swapped out "
SIZE = MIB
PAGE = 4096
FOREIGN_FSTAB = "# mine\nUUID=0a /  ext4 rw 0 1\n"
OLD_FSTAB = FOREIGN_FSTAB + f"UUID={UUID} none swap sw,pri=3 0 0 # kept"
OLD_RESUME = f"RESUME=UUID={UUID}\n"
OPTIONS = "swap,cipher=aes-xts-plain64,size=512,plain,sector-size=4096"


class Swap(Scenario):
    """A swap partition with a life behind it, in fstab by its UUID, and the installer's RESUME."""

    gates = ()

    def __init__(self, scratch):
        tree = Tree.make(scratch / "template")
        with open(tree.image(), "wb") as image:
            image.write((PLAINTEXT * (SIZE // len(PLAINTEXT) + 1))[:SIZE])
        must("mkswap", "-q", "-U", UUID, tree.image())
        by_uuid = tree.root / "dev/disk/by-uuid"
        by_uuid.mkdir()
        (by_uuid / UUID).symlink_to("../../../img/d1")
        (tree.root / "etc/fstab").write_text(OLD_FSTAB)
        self.resume(tree).parent.mkdir(parents=True)
        self.resume(tree).write_text(OLD_RESUME)
        self.words = ("cryptswap", tree.link())
        self.new_tab = FOREIGN_TAB + f"{tree.name()}  {tree.link()}  /dev/urandom  {OPTIONS}\n"
        self.new_fstab = OLD_FSTAB.replace(f"UUID={UUID}", f"/dev/mapper/{tree.name()}")
        self.head = tree.image().read_bytes()[:PAGE]
        super().__init__(tree)

    @staticmethod
    def resume(tree):
        return tree.root / "etc/initramfs-tools/conf.d/resume"

    def tables(self, tree):
        """crypttab and fstab, each "old" or "new"."""
        tab, fstab = tree.tab(), (tree.root / "etc/fstab").read_text()
        check(tab in (FOREIGN_TAB, self.new_tab), f"the crypttab is neither old nor new: {tab!r}")
        check(fstab in (OLD_FSTAB, self.new_fstab), f"the fstab is neither old nor new: {fstab!r}")
        return ("new" if tab == self.new_tab else "old", "new" if fstab == self.new_fstab else "old")

    def inspect(self, tree, done, call, fault):
        tables = self.tables(tree)
        check(tables != ("old", "new"), "fstab names a mapping that crypttab does not know")
        data = tree.image().read_bytes()
        check(len(data) == SIZE, "the device has another size")
        if tables[0] == "new":
            check(PLAINTEXT not in data, "crypttab is new, and plaintext is left")
            check(self.resume(tree).read_text() == "RESUME=none\n", "RESUME is waited for in vain")
        if tables == ("old", "old"):
            check(data[:PAGE] == self.head, "the tables are old, and the swap header is gone")
            check(run("blkid", "-p", tree.image()).out.count(UUID) == 1, "blkid does not see the swap")
        if done.status == 0:
            self.is_finished(tree)
        elif not fault.kills:
            check("qs-util cryptswap: " in done.err, "says nothing")
            self.is_undone(tree, done, fault)

    def is_undone(self, tree, done, fault):
        """One error: all is as it was. Where the errors go on this cannot be, and is said."""
        if fault.onward and "could not be brought back" in done.err:
            return
        check(self.tables(tree) == ("old", "old"), "failed, and the tables are not the old ones")
        check(self.resume(tree).read_text() == OLD_RESUME, "failed, and RESUME is not the old one")
        check(not tree.journals() or fault.onward, f"failed, and still pending: {tree.journals()}")

    def is_finished(self, tree):
        check(self.tables(tree) == ("new", "new"), "reports success, and the tables are not new")
        check(tree.image().read_bytes() == bytes(SIZE), "reports success, and the device is not empty")
        check(self.resume(tree).read_text() == "RESUME=none\n", "reports success, and RESUME is left")
        nothing_is_left_over(tree)

    def again(self, tree, unsynced):
        done = self.second(tree, unsynced)
        check(done.status == 0, f"the second run: {done}")
        self.is_finished(tree)


class FirstLine(Swap):
    """All swaps, without a crypttab before: it is absent again when a step fails."""

    def __init__(self, scratch):
        super().__init__(scratch)
        self.words = ("cryptswap",)
        self.template.crypttab.unlink()
        self.new_tab = self.new_tab[len(FOREIGN_TAB) :]

    def tables(self, tree):
        tab = content(tree.crypttab)
        check(tab in (None, self.new_tab.encode()), f"the crypttab is neither absent nor new: {tab!r}")
        if tab is None:
            fstab = (tree.root / "etc/fstab").read_text()
            return ("old", "old" if fstab == OLD_FSTAB else "new")
        return super().tables(tree)


def refused_read_only(scratch):
    """cryptswap, read-only /etc: refused before the swap is touched"""
    tree = Swap(scratch).template
    before = tree.fingerprint()
    with read_only(tree.root / "etc"):
        done = tree.qs("cryptswap")
    check(done.status == 1, f"not refused: {done}")
    check("Read-only file system" in done.err, f"the reason is missing: {done}")
    check(tree.fingerprint() == before, "something changed")


private_mounts()
main(
    swept(Swap, KILL, "cryptswap, tables old, crypttab first, or new"),
    swept(Swap, FULL, "cryptswap, the old state or done"),
    swept(Swap, STAYS_FULL, "cryptswap, the old state or said"),
    swept(Swap, WRITE_ERROR, "cryptswap, the old state or done"),
    swept(Swap, READ_ERROR, "cryptswap, the old state or done"),
    swept(FirstLine, WRITE_ERROR, "cryptswap without a crypttab, the old state or done"),
    refused_read_only,
)
