#!/usr/bin/python3 -B
"""Opening by the TPM under faults.

cryptopenall --early: a boot that goes on (there is a report for its script) has closed the PCR,
or says that it could not; the TPM's key is used only where it is closed. A kill before that ends
the boot: no report, and nothing is open, as closing comes before opening. The values from before
closing are recorded right or not at all. Disks, keys, backups and tables never change.

tpm2_self_heal: at every point the device opens by its key file and holds no keyslot that no token
opens; the old keyslot goes after the new one is proven and backed up. The same again finishes it,
except that a kill after the old keyslot went leaves the backup with it (and the new one) until the
next change of keyslots, as nothing moved any more.

cryptopenall --test --all-ways: nothing is written at all, whatever fails.

cryptenroll --tpm2 of several disks: one that fails, or whose worker dies, does not hold up the
others, and is named."""

import json
import os
import shutil
from pathlib import Path

from faultbench import (
    FOREIGN_TAB,
    QS_UTIL,
    Run,
    Tree,
    check,
    content,
    data_is_untouched,
    main,
    must,
    opens,
    read_part,
)
from sweep import FULL, KILL, READ_ERROR, WRITE_ERROR, changing, swept
from tpm import TpmScenario

SECOND_AT = 128 << 10
CONFIGURATION = "etc/cryptconf/qs-util.conf"  # names the tree's own TPM


def formatted(scratch, count=1):
    tree = Tree.make(scratch / "template", count)
    must(*tree.command("cryptformat", "--no-open", *(tree.link(n) for n in range(1, count + 1))))
    return tree


def metadata(image):
    """On a copy, as reading repairs."""
    copy = image.with_name(f"{image.name}.looked-at")
    shutil.copyfile(image, copy)
    try:
        return json.loads(must("cryptsetup", "luksDump", "--dump-json-metadata", copy).out)
    finally:
        copy.unlink()


# ---- before the root file system ----


class Early(TpmScenario):
    """The TPM is the only way. There is no device-mapper here: a device that the TPM's key fits is
    "failed" in the report, one that it does not fit is "ask"."""

    words = ("cryptopenall", "--early")
    expected = 1
    pcrs = (7,)
    gates = ()
    fork = 3  # headers are looked at, the TPM unseals, the PCR is closed, the device is opened

    def __init__(self, scratch):
        tree = formatted(scratch)
        super().__init__(tree)
        self.enrol(tree)
        self.use_tpm(tree)
        self.value = self.pcr(tree, 7)
        self.drop_tpm(self.directory_of(tree))
        self.settings = "early_wait = 0;\n"
        tree.crypttab.write_text(tree.tab().replace(" luks\n", " luks,initramfs\n"))
        tree.key().unlink()
        self.prepare(tree)
        self.before = tree.fingerprint(CONFIGURATION)

    def prepare(self, tree):
        """What is different here."""

    def report(self, tree):
        text = content(tree.root / "run/qs-util/early")
        return text.decode() if text is not None else None

    def record_is_right(self, tree):
        text = content(tree.root / "run/qs-util/tpm2-closed.json")
        if text is not None:
            check(json.loads(text)["before"]["sha256"]["7"] == self.value, "the record is not of before")
        return text is not None

    def inspect(self, tree, done, call, fault):
        check(tree.fingerprint(CONFIGURATION) == self.before, "a file changed")
        closed = self.pcr(tree, 7) != self.value
        report = self.report(tree)
        recorded = self.record_is_right(tree)
        tree.unrecorded = "not recorded" in done.err
        if fault.kills and done.status < 0:
            check(report is None or closed, "killed with a report, but the PCR is open")
        elif report is not None:
            check(closed or "could not be closed" in done.err, "the boot goes on with an open PCR")
        check(not closed or recorded or tree.unrecorded, "closed without a record, and without a word")
        check(closed or "failed" not in (report or ""), "the TPM's key was used, but the PCR is open")
        check(done.status < 0 or (done.status in range(1, 8) and done.err), "ends in no orderly way")

    def again(self, tree, unsynced):
        done = tree.qs(*self.words)
        check(done.status in (1, 2), f"the second run: {done}")
        check(self.pcr(tree, 7) != self.value, "the second run does not close the PCR")
        check(self.report(tree), "the second run leaves no report")
        if not tree.unrecorded:
            check(self.record_is_right(tree), "the second run leaves no record")
        self.drop_tpm(self.directory_of(tree))


class EarlyWorkerDies(Early):
    """The worker that closes dies by itself, and the main process goes on."""

    kill_all = False


class EarlyAbsent(Early):
    """The disk is not there: nothing is unsealed, the PCR is closed all the same."""

    expected = 0
    fork = 2

    def prepare(self, tree):
        (tree.root / tree.link()[1:]).unlink()

    def inspect(self, tree, done, call, fault):
        check(not self.report(tree) or "absent" in self.report(tree), "a disk that is not there is not absent")
        if done.status == 0:
            done = Run(1, done.out, done.err or "-")  # an absent disk is no failure
        super().inspect(tree, done, call, fault)

    def again(self, tree, unsynced):
        done = tree.qs(*self.words)
        check(done.status == 0, f"the second run: {done}")
        check(self.pcr(tree, 7) != self.value, "the second run does not close the PCR")
        self.drop_tpm(self.directory_of(tree))


# ---- healing ----


class Heal(TpmScenario):
    """PCR 7 moved. cryptopen cannot open here: mkhealed begins where it has."""

    pcrs = (7,)
    settings = "tpm2_self_heal = true;\n"

    def __init__(self, scratch):
        tree = formatted(scratch)
        super().__init__(tree)
        self.enrol(tree)
        self.key = content(tree.key())
        found = metadata(tree.image())
        self.tokens = found["tokens"]
        self.salt = found["keyslots"]["1"]["kdf"]["salt"].encode()

    def use_tpm(self, tree):
        begins = not (self.directory_of(tree) / "pid").exists()
        super().use_tpm(tree)
        if begins and self.state:
            self.measure(tree, "update", 7)

    def record(self, scratch):
        calls = super().record(scratch)
        check(any("img/d1" in call.path and changing(self.template, call) for call in calls), "nothing is healed")
        return calls

    def command(self, tree):
        program = Path(QS_UTIL).parent / "tests/unit/mkhealed"
        return [program, tree.root, tree.image(), tree.link(), tree.name()]

    def tpm2_tokens(self, tree):
        found = metadata(tree.image())
        named = {slot for token in found["tokens"].values() for slot in token["keyslots"]}
        check(named <= set(found["keyslots"]), "a token names a keyslot that is not there")
        check(set(found["keyslots"]) <= named | {"0"}, "a keyslot that no token opens is left")
        return [token for token in found["tokens"].values() if token["type"] == "systemd-tpm2"]

    def opens_by_tpm(self, tree):
        return tree.qs("cryptenroll", "--test", "--tpm2", tree.link()).status == 0

    def inspect(self, tree, done, call, fault):
        data_is_untouched(tree)
        check(tree.tab() == FOREIGN_TAB + tree.line(), "crypttab changed")
        check(content(tree.key()) == self.key, "the key changed")
        check(opens(tree.image(), tree.key()), "stock cryptsetup does not open it by its key file")
        check(opens(tree.backup(), tree.key()), "stock cryptsetup does not open its backup by its key file")
        tokens = self.tpm2_tokens(tree)
        check(tokens, "there is no TPM2 keyslot any more")
        self.use_tpm(tree)
        if not self.opens_by_tpm(tree):
            check(self.tokens.items() <= metadata(tree.image())["tokens"].items(), "the old keyslot went first")
        if fault.kills:
            return
        check(done.status == 0, "a device that is open is reported as failed")
        if "tpm2_healed" in done.out:
            self.is_healed(tree)
            self.is_settled(tree)
        else:
            check("could not be sealed anew" in done.err, "says nothing")

    def is_healed(self, tree):
        self.use_tpm(tree)
        check(len(self.tpm2_tokens(tree)) == 1, "not one TPM2 keyslot")
        check(self.opens_by_tpm(tree), "the TPM does not open it")

    def is_settled(self, tree):
        check(content(tree.backup())[:SECOND_AT] == read_part(tree.image(), 0, SECOND_AT), "the backup is old")
        check(not tree.leftovers() and not tree.journals(), "something is left over")

    def again(self, tree, unsynced):
        """Once the old keyslot is gone nothing moved any more: the rest is the next change's."""
        self.use_tpm(tree)
        done = self.second(tree, None)
        check(done.status == 0, f"the second run: {done}")
        self.is_healed(tree)
        if "tpm2_healed" in done.out:
            self.is_settled(tree)
        check(opens(tree.image(), tree.key()), "the key file opens it no more")
        self.use_tpm(tree)
        must(*tree.command("cryptenroll", tree.link(), "--tpm2"))
        self.is_healed(tree)
        self.is_settled(tree)
        old = [path.name for path in (tree.conf / "headers").rglob("*.header") if self.salt in path.read_bytes()]
        check(not old, f"the old keyslot is still in {old}")
        self.drop_tpm(self.directory_of(tree))


# ---- looking ----


class AllWays(TpmScenario):
    """A key file and a TPM2 keyslot."""

    words = ("cryptopenall", "--test", "--all-ways")
    pcrs = (7,)
    gates = ()

    def __init__(self, scratch):
        tree = formatted(scratch)
        super().__init__(tree)
        self.enrol(tree)
        self.before = tree.fingerprint(CONFIGURATION)

    def record(self, scratch):
        calls = super().record(scratch)
        written = [str(call) for call in calls if changing(self.template, call)]
        check(not written, f"whoever only looks never writes: {written}")
        return calls

    def inspect(self, tree, done, call, fault):
        check(tree.fingerprint(CONFIGURATION) == self.before, "a file changed")
        check(done.status in (0, 1, 2, 3, 4, 6, 7, 78), "ends in no orderly way")
        check(done.status != 0 or done.out.count("proven") > 0, "success without a proof")

    def again(self, tree, unsynced):
        self.use_tpm(tree)
        done = tree.qs(*self.words)
        check(done.status == 0, f"the second run: {done}")
        self.drop_tpm(self.directory_of(tree))


class AllWaysTpm(AllWays):
    """The worker that asks the TPM is struck."""

    fork = 2


# ---- several disks ----


class EnrollThree(TpmScenario):
    """What strikes the second disk's worker while it has that disk is no matter of the others."""

    kill_all = False
    gates = (2,)

    def __init__(self, scratch):
        tree = formatted(scratch, 3)
        super().__init__(tree)
        self.words = ("cryptenroll", *(tree.link(n) for n in (1, 2, 3)), "--tpm2", "--pcrs", "none")

    def inspect(self, tree, done, call, fault):
        data_is_untouched(tree, 1, 2, 3)
        self.use_tpm(tree)
        for number in (1, 2, 3):
            check(opens(tree.image(number), tree.key(number)), f"d{number} does not open by its key file")
            tested = tree.qs("cryptenroll", "--test", "--tpm2", tree.link(number))
            if number != 2 or done.status == 0:
                check(tested.status == 0, f"the TPM does not open d{number}: {tested}")
        check(done.status in (0, 7), "does not say that some are done and some are not")
        check(done.status == 0 or tree.base(2) in done.err, "does not name the disk")
        for number in (1, 3):
            check(f"{tree.base(number)}:" not in done.err, f"blames d{number}: {done.err}")

    def again(self, tree, unsynced):
        self.use_tpm(tree)
        done = tree.qs(*self.words)
        check(done.status == 0, f"the second run: {done}")
        for number in (1, 2, 3):
            found = metadata(tree.image(number))
            check(len(found["keyslots"]) == 2, f"d{number} has {len(found['keyslots'])} keyslots")
            check(
                content(tree.backup(number))[:SECOND_AT] == read_part(tree.image(number), 0, SECOND_AT),
                f"the backup of d{number} is old",
            )
        self.drop_tpm(self.directory_of(tree))


# ---- what is swept ----

ALL = os.environ.get("QS_FAULT_ALL")


def first(*names):
    """These calls, the first of each; QS_FAULT_ALL=1 takes all."""
    return lambda tree, call: bool(ALL) or (call.name in names and call.number == 1)


def some_heal(tree, call):
    """The new keyslot, an older backup that gets its name, one that is being erased."""
    return bool(ALL) or (call.name in ("pwrite64", "rename") and call.number in (1, 33))


def of_second(choose):
    """What the worker does with the second disk."""

    def chosen(tree, call):
        mine = str(tree.image(2)) in call.path or tree.base(2) in call.path
        return call.process == "worker" and mine and choose(tree, call)

    return chosen


TESTS = [
    swept(Early, WRITE_ERROR, "early, closed or not opened", first("renameat")),
    swept(EarlyWorkerDies, KILL, "early-worker-dies, closed or not opened", first("renameat")),
    swept(Heal, KILL, "heal, the old keyslot goes last", some_heal),
    swept(AllWaysTpm, READ_ERROR, "all-ways-tpm, changes nothing", first("pread64")),
    swept(EnrollThree, WRITE_ERROR, "enroll-three, the others are done", of_second(first("rename"))),
]
REST = [
    swept(Early, KILL, "early, closed or not opened"),
    swept(Early, FULL, "early, closed or not opened"),
    swept(Early, READ_ERROR, "early, closed or not opened"),
    swept(EarlyAbsent, KILL, "early-absent, closed all the same"),
    swept(EarlyAbsent, WRITE_ERROR, "early-absent, closed all the same"),
    swept(Heal, FULL, "heal, the old keyslot goes last"),
    swept(Heal, WRITE_ERROR, "heal, the old keyslot goes last"),
    swept(Heal, READ_ERROR, "heal, the old keyslot goes last"),
    swept(AllWays, READ_ERROR, "all-ways, changes nothing"),
    swept(EnrollThree, KILL, "enroll-three, the others are done", of_second(first())),
    swept(EnrollThree, READ_ERROR, "enroll-three, the others are done", of_second(first())),
]

main(*TESTS, *(REST if ALL else []))
