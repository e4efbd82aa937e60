#!/usr/bin/python3 -B
"""cryptformat under faults: rows probe, key, format, prove, header backup and crypttab."""

import shutil

from faultbench import (
    FOREIGN_TAB,
    MIB,
    Tree,
    backup_is_whole,
    check,
    data_is_untouched,
    digest,
    has_trace,
    header_has_its_key,
    is_formatted,
    main,
    must,
    stock_format,
    table_is_old_or_new,
    write_at,
)
from formatting import Format, FormatTwo, is_finished, is_finished_alone
from sweep import FULL, KILL, READ_ERROR, STAYS_FULL, WRITE_ERROR, Scenario, swept


class Abandoned(Format):
    """Instead of a second cryptformat the device is given up: cryptdestroy leaves no secret."""

    def again(self, tree, unsynced):
        key = tree.root.parent / f"{tree.root.name}.key"
        if tree.key().exists():
            shutil.copy(tree.key(), key)
        done = tree.qs("cryptdestroy", "--yes", tree.link())
        check(done.status in (0, 4), f"cryptdestroy: {done}")
        check(not has_trace(tree.image()), "a LUKS magic is left")
        check(tree.tab() == FOREIGN_TAB, "the line is still in crypttab")
        secrets = [path.name for path in tree.conf.rglob("*/*") if path.parent.name != "pending"]
        check(not secrets, f"left over: {secrets}")
        done = tree.qs("cryptformat", "--no-open", tree.link())
        check(done.status in (0, 6), f"cryptformat afterwards: {done}")
        if done.status == 0:
            is_formatted(tree, FOREIGN_TAB, 1)


class FormatOneOfTwo(FormatTwo):
    """One of two workers is killed, the main process and the other worker live on."""

    kill_all = False

    def __init__(self, template):
        super().__init__(template)
        self.gates = (1,)

    def inspect(self, tree, done, call, fault):
        super().inspect(tree, done, call, fault)
        check(done.status == 7, "one of two devices failed, but not the exit status 7")
        check("signal 9" in done.err, "does not say that its worker was killed")
        check(is_finished_alone(tree, 2), "the other device is not finished")


class Reformat(Scenario):
    """cryptformat --force of a device that has a key and an older backup of ours."""

    def __init__(self, template):
        super().__init__(template)
        self.words = ("cryptformat", "--yes", "--force", "--no-open", template.link())
        self.old_key = template.key().read_bytes()
        self.old_backup = template.backup().read_bytes()

    @classmethod
    def make(cls, root):
        tree = Tree.make(root)
        must(*tree.command("cryptformat", "--no-open", tree.link()))
        tree.crypttab.write_text(FOREIGN_TAB)
        write_at(tree.image(), 0, bytes(MIB))
        return cls(tree)

    def inspect(self, tree, done, call, fault):
        data_is_untouched(tree)
        check(tree.key().read_bytes() == self.old_key, "the key changed")
        header_has_its_key(tree)
        backup_is_whole(tree)
        check(tree.backup().exists(), "there is no header backup any more")
        table_is_old_or_new(tree, FOREIGN_TAB, 1)
        if tree.backup().read_bytes() != self.old_backup:
            self.old_backup_is_kept(tree)
        if done.status == 0:
            is_formatted(tree, FOREIGN_TAB, 1)

    def old_backup_is_kept(self, tree):
        versions = list((tree.conf / f"headers/{tree.name()}.d").glob("*.header"))
        check(
            any(path.read_bytes() == self.old_backup for path in versions),
            "the previous header backup is gone",
        )

    def again(self, tree, unsynced):
        finished = is_finished(tree, 1) and tree.backup().read_bytes() != self.old_backup
        done = self.second(tree, unsynced)
        check(done.status == (5 if finished else 0), f"the second run: {done}")
        is_formatted(tree, FOREIGN_TAB, 1)
        self.old_backup_is_kept(tree)


class Refused(Scenario):
    """cryptformat of a device that holds something: refused whatever cannot be read."""

    expected = 6

    def __init__(self, template):
        super().__init__(template)
        self.words = ("cryptformat", "--no-open", template.link())
        self.before = digest(template.image())

    def inspect(self, tree, done, call, fault):
        check(done.status in (1, 2, 4, 5, 6, 127), "a device that holds something was not refused")
        check(digest(tree.image()) == self.before, "the device changed")
        check(tree.tab() == FOREIGN_TAB, "crypttab changed")
        check(not tree.key().exists(), "a key was made")

    def again(self, tree, unsynced):
        pass


def empty(scratch):
    return Format(Tree.make(scratch / "template"))


def two(scratch):
    return configured(FormatTwo, scratch)


def one_of_two(scratch):
    return configured(FormatOneOfTwo, scratch)


def abandoned(scratch):
    return Abandoned(Tree.make(scratch / "template"))


def configured(scenario, scratch):
    tree = Tree.make(scratch / "template", 2)
    # Both at once, however few cores there are.
    (tree.conf / "qs-util.conf").write_text("workers = 2;\n")
    return scenario(tree)


def reformat(scratch):
    return Reformat.make(scratch / "template")


def with_file_system(scratch):
    tree = Tree.make(scratch / "template")
    must("mkfs.ext4", "-q", "-F", tree.image(), "8m")
    return Refused(tree)


def with_luks_of_others(scratch):
    tree = Tree.make(scratch / "template")
    (scratch / "key").write_bytes(b"k" * 64)
    stock_format(tree.image(), scratch / "key")
    return Refused(tree)


def in_worker(_, call):
    return call.process == "worker"


def on_backups(_, call):
    return call.process == "worker" and "/headers" in call.path


main(
    swept(empty, KILL, "cryptformat, a second run finishes"),
    swept(empty, FULL, "cryptformat, a second run finishes"),
    swept(empty, STAYS_FULL, "cryptformat, a second run finishes"),
    swept(empty, WRITE_ERROR, "cryptformat, a second run finishes"),
    swept(empty, READ_ERROR, "cryptformat, a second run finishes"),
    swept(abandoned, KILL, "abandoned cryptformat, cryptdestroy leaves no secret"),
    swept(two, KILL, "cryptformat of two devices, a second run finishes both"),
    swept(one_of_two, KILL, "one worker of two, the other device is done", in_worker),
    swept(reformat, KILL, "forced cryptformat, the older header backup stays", on_backups),
    swept(reformat, FULL, "forced cryptformat, the older header backup stays", on_backups),
    swept(with_file_system, READ_ERROR, "cryptformat of a device with ext4, never taken for empty"),
    swept(
        with_luks_of_others,
        READ_ERROR,
        "cryptformat of a device with LUKS, never taken for empty",
        in_worker,
    ),
)
