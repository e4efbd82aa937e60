#!/usr/bin/python3 -B
"""cryptenroll --tpm2 under faults: the device opens as before, or by its TPM too; no keyslot is
left that nobody can open, and the same command again ends with one TPM2 keyslot."""

import json
import os
import shutil

from faultbench import FOREIGN_TAB, Tree, check, content, data_is_untouched, main, must, opens
from sweep import FULL, KILL, READ_ERROR, WRITE_ERROR, one_in, swept
from tpm import TpmScenario

SECOND_AT = 128 << 10
SAMPLE = one_in(5)


def metadata(image):
    done = must("cryptsetup", "luksDump", "--dump-json-metadata", image)
    return json.loads(done.out)


class Enroll(TpmScenario):
    """The first TPM2 keyslot. Each tree has a TPM of its own."""

    before = ()  # what is done to the template, besides its format

    def __init__(self, scratch):
        tree = Tree.make(scratch / "template")
        must(*tree.command("cryptformat", "--no-open", tree.link()))
        self.words = ("cryptenroll", tree.link(), "--tpm2", "--pcrs", "none")
        super().__init__(tree)
        for words in self.before:
            self.use_tpm(tree)
            must(*tree.command(*(tree.link() if word == "LINK" else word for word in words)))
        self.key = content(tree.key())

    def inspect(self, tree, done, call, fault):
        data_is_untouched(tree)
        check(tree.tab() == FOREIGN_TAB + tree.line(), "crypttab changed")
        check(content(tree.key()) == self.key, "the key changed")
        check(opens(tree.image(), tree.key()), "stock cryptsetup does not open it by its key file")
        self.slots_are_sound(tree)
        if done.status == 0:
            self.tpm_opens(tree)
        elif not fault.kills:
            check(done.status in range(8), "ends in no orderly way")
            check("qs-util cryptenroll: " in done.err, "says nothing")

    def slots_are_sound(self, tree):
        """On a copy, as reading repairs."""
        copy = tree.root.parent / f"{tree.root.name}.img"
        shutil.copyfile(tree.image(), copy)
        found = metadata(copy)
        os.unlink(copy)
        named = {slot for token in found["tokens"].values() for slot in token["keyslots"]}
        check(named <= set(found["keyslots"]), "a token names a keyslot that is not there")
        check(set(found["keyslots"]) <= named | {"0"}, "a keyslot that no token opens is left")
        return [token for token in found["tokens"].values() if token["type"] == "systemd-tpm2"]

    def tpm_opens(self, tree):
        self.use_tpm(tree)
        done = tree.qs("cryptenroll", "--test", "--tpm2", tree.link())
        check(done.status == 0, f"the TPM does not open it: {done}")

    def again(self, tree, unsynced):
        self.use_tpm(tree)
        done = self.second(tree, unsynced)
        check(done.status == 0, f"the second run: {done}")
        check(len(self.slots_are_sound(tree)) == 1, "not one TPM2 keyslot")
        self.tpm_opens(tree)
        check(opens(tree.image(), tree.key()), "the key file opens it no more")
        check(not tree.leftovers() and not tree.journals(), "something is left over")
        head = tree.image().open("rb").read(SECOND_AT)
        check(tree.backup().open("rb").read(SECOND_AT) == head, "the backup is not the header")
        self.drop_tpm(self.directory_of(tree))


class EnrollAgain(Enroll):
    """A keyslot of another TPM with the same policy is there and is replaced."""

    before = (("cryptenroll", "LINK", "--tpm2", "--pcrs", "none"),)


main(
    swept(Enroll, KILL, "enroll-tpm2, opens as before and after"),
    swept(Enroll, FULL, "enroll-tpm2, opens as before and after"),
    swept(Enroll, WRITE_ERROR, "enroll-tpm2, opens as before and after"),
    # What the main process reads is the same for every method (test-enroll.py).
    swept(
        Enroll,
        READ_ERROR,
        "enroll-tpm2, opens as before and after",
        lambda tree, call: call.process == "worker" and SAMPLE(tree, call),
    ),
    swept(EnrollAgain, KILL, "enroll-tpm2-again, the old keyslot goes last"),
)
