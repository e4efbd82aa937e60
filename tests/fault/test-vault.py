#!/usr/bin/python3 -B
"""cryptbackup and cryptrestore under faults: the device and the newest backup always open, and a
second run of the same command finishes; torn states of a restore at every cut (faults F6)."""

import hashlib
import json
import os
import random
import shutil

import faultbench
from faultbench import (
    DATA_AT,
    FOREIGN_TAB,
    HEADER_SIZE,
    SECOND_AT,
    Broken,
    Tree,
    check,
    data_is_untouched,
    digest,
    in_parallel,
    main,
    must,
    nothing_is_left_over,
    read_part,
    remove,
    stock_format,
    table_is_old_or_new,
    write_at,
)
from mounts import private_mounts, read_only
from sweep import FULL, KILL, READ_ERROR, WRITE_ERROR, Scenario, swept

FAST = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")


def formatted(scratch):
    tree = Tree.make(scratch / "template")
    (tree.conf / "qs-util.conf").write_text("workers = 1;\n")
    must(*tree.command("cryptformat", "--no-open", "--no-crypttab", tree.link()))
    return tree


def change_by_stock(tree, name="test"):
    token = json.dumps({"type": name, "keyslots": []}).encode()
    must("cryptsetup", "token", "import", "--json-file", "-", tree.image(), input=token)


JUDGED = {}


def opens(path, key):
    """Does stock cryptsetup open it? The same header with the same key is judged once."""
    if not key.exists():
        return False
    what = (digest(path, 0, HEADER_SIZE), digest(key))
    if what not in JUDGED:
        JUDGED[what] = faultbench.opens(path, key)
    return JUDGED[what]


def versions(tree):
    return sorted((tree.conf / f"headers/{tree.name()}.d").glob("[0-9]*.header"))


def head(path):
    return read_part(path, 0, HEADER_SIZE)


def backup_is_the_header(tree):
    check(head(tree.backup()) == head(tree.image()), "the backup is not the device's header")


class Backup(Scenario):
    """cryptbackup after another tool has changed the header twice; one version is there."""

    gates = ()

    def __init__(self, scratch):
        tree = formatted(scratch)
        change_by_stock(tree)
        must(*tree.command("cryptbackup", tree.link()))
        change_by_stock(tree, "more")
        super().__init__(tree)
        self.words = ("cryptbackup", tree.link())
        self.header = head(tree.image())
        self.old = head(tree.backup())

    def inspect(self, tree, done, call, fault):
        data_is_untouched(tree)
        table_is_old_or_new(tree, FOREIGN_TAB)
        check(head(tree.image()) == self.header, "the device's header changed")
        check(opens(tree.backup(), tree.key()), "the newest backup does not open")
        for version in versions(tree):
            check(opens(version, tree.key()), f"{version.name} does not open")
        now = head(tree.backup())
        check(now in (self.old, self.header), "the backup is neither the old nor the new one")
        kept = [head(version) for version in versions(tree)]
        check(now == self.old or self.old in kept, "the last backup is gone")
        if done.status == 0:
            backup_is_the_header(tree)
        if fault.kills:
            return
        check(done.status in range(8), "ends in no orderly way")
        check(done.status == 0 or done.err.startswith("qs-util cryptbackup: "), "says nothing")
        if "fsync" in call.name and "/run/" not in call.path:
            check(done.status != 0, "exit status 0 though a sync failed")

    def again(self, tree, unsynced):
        done = self.second(tree, unsynced)
        check(done.status == 0, f"the second run: {done}")
        backup_is_the_header(tree)
        check(self.old in [head(version) for version in versions(tree)], "the last backup is gone")
        nothing_is_left_over(tree)


class Restore(Scenario):
    """cryptrestore --force FILE of an older header: another keyslot, in another place."""

    synced_first = ("etc/cryptconf",)

    def __init__(self, scratch):
        tree = formatted(scratch)
        self.file = scratch / "old.header"
        self.other = scratch / "other.key"
        shutil.copy(tree.backup(), self.file)
        self.other.write_bytes(os.urandom(64))
        change = ("--key-file", tree.key(), tree.image(), self.other)
        must("cryptsetup", "luksAddKey", "-q", *FAST, *change)
        must("cryptsetup", "luksKillSlot", "-q", "--key-file", self.other, tree.image(), "0")
        must(*tree.command("cryptbackup", tree.link()))
        check(not opens(tree.image(), tree.key()), "the old key still opens the newer header")
        super().__init__(tree)
        self.words = ("cryptrestore", "--yes", "--force", tree.link(), self.file)
        self.newer = head(tree.image())

    def inspect(self, tree, done, call, fault):
        data_is_untouched(tree)
        table_is_old_or_new(tree, FOREIGN_TAB)
        both = (opens(tree.image(), tree.key()), opens(tree.image(), self.other))
        check(any(both), "the device opens neither with the old nor with the new key")
        check(
            opens(tree.backup(), tree.key()) or opens(tree.backup(), self.other),
            "the newest backup does not open",
        )
        if done.status == 0:
            self.is_restored(tree)
        elif head(tree.image()) not in (self.newer, head(tree.backup())):
            check(tree.journals(), "half restored, and nothing says so")
        if fault.kills:
            return
        check(done.status in range(8), "ends in no orderly way")
        check(done.status == 0 or done.err.startswith("qs-util cryptrestore: "), "says nothing")
        if "fsync" in call.name and "/run/" not in call.path:
            check(done.status != 0, "exit status 0 though a sync failed")

    def is_restored(self, tree):
        check(opens(tree.image(), tree.key()), "the restored key does not open the device")
        check(not opens(tree.image(), self.other), "the header that was replaced still opens")
        backup_is_the_header(tree)
        check(self.newer in [head(version) for version in versions(tree)], "what was overwritten is gone")
        check(not tree.journals(), f"still pending: {tree.journals()}")

    def again(self, tree, unsynced):
        done = self.second(tree, unsynced)
        check(done.status == 0, f"the second run: {done}")
        self.is_restored(tree)
        nothing_is_left_over(tree)
        data_is_untouched(tree)
        status = json.loads(tree.qs("--json", "cryptstatus", tree.link()).out)["devices"][0]
        check(status["backup"]["agrees"] is True, "cryptstatus does not agree")


class Mend(Scenario):
    """cryptrestore without FILE, when a mebibyte is gone."""

    synced_first = ("etc/cryptconf",)

    def __init__(self, scratch):
        tree = formatted(scratch)
        self.good = head(tree.image())
        write_at(tree.image(), 0, b"\xe5" * (1 << 20))
        super().__init__(tree)
        self.words = ("cryptrestore", "--yes", tree.link())

    def inspect(self, tree, done, call, fault):
        data_is_untouched(tree)
        check(opens(tree.backup(), tree.key()), "the newest backup does not open")
        if done.status == 0:
            check(head(tree.image()) == self.good, "not restored")
            check(not tree.journals(), f"still pending: {tree.journals()}")

    def again(self, tree, unsynced):
        kept = tree.conf / f"headers/{tree.name()}.d"
        done = self.second(tree, unsynced)
        check(done.status == 0, f"the second run: {done}")
        check(head(tree.image()) == self.good, "not restored by the second run")
        check(opens(tree.image(), tree.key()), "the device does not open")
        raw = [path.read_bytes() for path in kept.glob("damaged-*.raw")]
        check(any(found.startswith(b"\xe5" * (1 << 20)) for found in raw), "what was overwritten is gone")
        nothing_is_left_over(tree)


# ---- cuts: what a power cut may leave of the writes ----

SECTOR = 512
# Inside a keyslot's area every cut is like every other: the header does not lead there yet, or any
# more. QS_FAULT_ALL=1 takes them all.
STRIDE = 1 if os.environ.get("QS_FAULT_ALL") else 24


class Cuts(Restore):
    """The states between the old and the restored header, in the order of the writes."""

    def __init__(self, scratch):
        super().__init__(scratch)
        done = self.template.copy(scratch / "done")
        must(*done.command(*self.words))
        self.target = head(done.image())
        self.begun = self.template.copy(scratch / "begun")
        shutil.copytree(
            done.conf / f"headers/{done.name()}.d", self.begun.conf / f"headers/{done.name()}.d", dirs_exist_ok=True
        )
        shutil.copy(done.backup(), self.begun.backup())
        journal = {"op": "restore", "uuid": "", "device": done.link()}
        journal["image"] = hashlib.sha256(self.target).hexdigest()
        (self.begun.pending / f"{done.name()}.json").write_text(json.dumps(journal))

    def used_areas(self):
        text = json.loads(self.target[4096:SECOND_AT].rstrip(b"\0"))
        areas = [slot["area"] for slot in text["keyslots"].values()]
        return [(int(area["offset"]), int(area["offset"]) + int(area["size"])) for area in areas]

    def parts(self):
        """As lib/luks/areas.c writes them; each is synced before the next begins."""
        used = self.used_areas()
        rest, at = [], 2 * SECOND_AT
        for start, end in sorted(used):
            rest.append((at, start))
            at = end
        rest.append((at, HEADER_SIZE))
        return [used, [(0, SECOND_AT)], [(SECOND_AT, 2 * SECOND_AT)], rest]

    def differing(self, part):
        return [
            at
            for start, end in part
            for at in range(start, end, SECTOR)
            if self.newer[at : at + SECTOR] != self.target[at : at + SECTOR]
        ]

    def states(self, mixes):
        """(label, sectors of the target) for every cut, and for MIXES random orders in each part."""
        before = []
        for number, part in enumerate(self.parts()):
            sectors = self.differing(part)
            step = 1 if number in (1, 2) else STRIDE
            for cut in sorted({*range(0, len(sectors) + 1, step), 1, len(sectors)} - {len(sectors) + 1}):
                yield f"part {number}, cut {cut}", before + sectors[:cut]
            for mix in range(mixes if sectors else 0):
                choose = random.Random(100 * number + mix)
                yield f"part {number}, mix {mix}", before + [at for at in sectors if choose.random() < 0.5]
            before = before + sectors

    def put(self, tree, sectors):
        header = bytearray(self.newer)
        for at in sectors:
            header[at : at + SECTOR] = self.target[at : at + SECTOR]
        write_at(tree.image(), 0, bytes(header))


def torn_restore(scratch):
    """a restore cut at every sector of its writes: always opens with the old or the new key; a second run finishes"""
    cuts = Cuts(scratch)
    states = list(enumerate(cuts.states(12)))

    def judge(item):
        index, (label, sectors) = item
        tree = cuts.begun.copy(scratch / f"state-{index}")
        try:
            cuts.put(tree, sectors)
            check(
                opens(tree.image(), tree.key()) or opens(tree.image(), cuts.other),
                "opens neither with the old nor with the new key",
            )
            if "mix" in label or index % 16 == 0:
                # Without FILE: the journal and the backup are enough.
                must(*tree.command("--yes", "cryptrestore", tree.link()))
                cuts.is_restored(tree)
                data_is_untouched(tree)
        except (Broken, RuntimeError) as error:
            raise Broken(f"{label}: {error}") from None
        remove(tree.root)

    for _, error in in_parallel(judge, states):
        if isinstance(error, Exception):
            raise error
    return f"{len(states)} states"


def stock_order_loses_it(scratch):
    """F6: stock luksHeaderRestore, cut the same way, leaves states that no key opens"""
    cuts = Cuts(scratch)
    old = cuts.file.read_bytes()
    sectors = [
        at for at in range(0, HEADER_SIZE, SECTOR) if cuts.newer[at : at + SECTOR] != old[at : at + SECTOR]
    ]
    dead = 0
    for cut in range(len(sectors) // 2, len(sectors), len(sectors) // 8):
        header = bytearray(cuts.newer)
        for at in sectors[:cut]:
            header[at : at + SECTOR] = old[at : at + SECTOR]
        tree = cuts.template.copy(scratch / f"cut-{cut}")
        write_at(tree.image(), 0, bytes(header))
        dead += not opens(tree.image(), tree.key()) and not opens(tree.image(), cuts.other)
        remove(tree.root)
    check(dead > 0, "the bench cannot tell a bad order from a good one")


def same_area(scratch):
    """a restore over a header that uses the same areas, cut anywhere: the second run finishes"""
    cuts = Cuts(scratch)
    # The header of another volume in the place of the old one: nothing of it fits.
    stock_format(cuts.begun.image(), cuts.other, "--luks2-metadata-size", "128k", "--luks2-keyslots-size", "4m")
    cuts.newer = head(cuts.begun.image())
    states = [state for state in cuts.states(2) if "mix" in state[0] or "cut 1" in state[0]][::5]
    for index, (label, sectors) in enumerate(states):
        tree = cuts.begun.copy(scratch / f"same-{index}")
        cuts.put(tree, sectors)
        done = tree.qs("--yes", "cryptrestore", "--force", tree.link())
        check(done.status == 0, f"{label}: {done}")
        check(opens(tree.image(), tree.key()), f"{label}: does not open")
        nothing_is_left_over(tree)
        remove(tree.root)
    return f"{len(states)} states"


# ---- read-only, two at once ----


def read_only_places(scratch):
    """R: /etc, headers, pending or the disk read-only: refused before the disk is written, then finished"""
    for part in ("etc", "etc/cryptconf/headers", "etc/cryptconf/pending", "img/d1"):
        mend = Mend(scratch / part.replace("/", "-"))
        tree = mend.template
        before = read_part(tree.image(), 0, DATA_AT)
        with read_only(tree.root / part):
            done = tree.qs(*mend.words)
            check(done.status == (4 if part == "img/d1" else 1), f"{part}: {done}")
            check("read-only" in done.err.lower(), f"{part}: {done}")
            check(read_part(tree.image(), 0, DATA_AT) == before, f"{part}: the disk was written")
        mend.again(tree, None)
    backup = Backup(scratch / "backup")
    with read_only(backup.template.root / "etc"):
        done = backup.template.qs(*backup.words)
        check(done.status == 1 and "Read-only" in done.err, f"cryptbackup: {done}")
        check(head(backup.template.backup()) == backup.old, "the backup changed")
    backup.again(backup.template, None)


def two_at_once(scratch):
    """2: ten restores and ten backups of one device at once: each ends orderly, the device is whole"""
    mend = Mend(scratch)
    tree = mend.template

    def one(index):
        return tree.qs(*(mend.words if index % 2 else ("cryptbackup", tree.link())))

    done = [result for _, result in in_parallel(one, range(20), 20)]
    for result in done:
        check(not isinstance(result, Exception), str(result))
        check(result.status in (0, 4, 5), f"{result}")
    must(*tree.command(*mend.words))
    check(head(tree.image()) == mend.good, "not restored")
    check(head(tree.backup()) == mend.good, "the backup is another one")
    nothing_is_left_over(tree)


private_mounts()
main(
    swept(Backup, KILL, "cryptbackup, the newest backup opens and a second run finishes"),
    swept(Backup, FULL, "cryptbackup, the newest backup opens and a second run finishes"),
    swept(Backup, WRITE_ERROR, "cryptbackup, the newest backup opens and a second run finishes"),
    swept(Backup, READ_ERROR, "cryptbackup, the newest backup opens and a second run finishes"),
    swept(Restore, KILL, "cryptrestore, always opens and a second run finishes"),
    swept(Restore, FULL, "cryptrestore, always opens and a second run finishes"),
    swept(Restore, WRITE_ERROR, "cryptrestore, always opens and a second run finishes"),
    swept(Restore, READ_ERROR, "cryptrestore, always opens and a second run finishes"),
    swept(Mend, KILL, "cryptrestore of a lost header, a second run finishes"),
    swept(Mend, WRITE_ERROR, "cryptrestore of a lost header, a second run finishes"),
    torn_restore,
    stock_order_loses_it,
    same_area,
    read_only_places,
    two_at_once,
)
