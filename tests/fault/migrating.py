"""The scenario of a migration: the key goes into a TPM, with two devices there and one away."""

import base64
import json

from enrolling import metadata
from faultbench import HEADER_SIZE, check, must, opens, read_part
from keystoring import directory, files, recover
from rotating import Rotate, store
from tpm import TpmScenario


class Migrate(Rotate, TpmScenario):
    """Every device and backup opens at every point, by what the TPM or the file of its generation gives."""

    words = ("--yes", "keystore", "migrate", "--provider", "tpm2", "--pcrs", "none")

    def __init__(self, scratch):
        super().__init__(scratch)
        self.keks = {}  # what the TPM was asked for, by what it had sealed
        self.private, self.escrow = scratch / "escrow.key", scratch / "escrow.pub"
        must("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", self.private)
        must("openssl", "pkey", "-in", self.private, "-pubout", "-out", self.escrow)

    def record(self, scratch):
        # Its copy finds the TPM by the configuration, which names the template's.
        self.use_tpm(self.template)
        return super().record(scratch)

    def strike(self, tree, call, fault, log):
        self.use_tpm(tree)
        return super().strike(tree, call, fault, log)

    def sealed_kek(self, tree):
        """Generation 2 as the TPM gives it, by export and openssl."""
        sealed = (directory(tree) / "2.sealed").read_bytes()
        if sealed in self.keks:
            return self.keks[sealed]
        self.use_tpm(tree)
        exported, jwk = tree.root.parent / f"{tree.root.name}.rsa", tree.root.parent / f"{tree.root.name}.2.jwk"
        words = ("keystore", "export", "--generation", "2", "--public-key", self.escrow, "--output", exported, "--force")
        must(*tree.command(*words))
        oaep = ("-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256")
        must("openssl", "pkeyutl", "-decrypt", "-inkey", self.private, *oaep, "-in", exported, "-out", jwk)
        text = json.loads(jwk.read_text())["k"]
        self.keks[sealed] = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return self.keks[sealed]

    def generation(self, tree, place):
        number = generation_of(place)
        if number == 1:
            return super().generation(tree, place)
        key = tree.root.parent / f"{tree.root.name}.recovered"
        recover(tree, place, key, {number: self.sealed_kek(tree)})
        check(opens(place, key), f"what the keystore wrapped does not open {place}")
        return number

    def finished(self, tree):
        now = store(tree)
        check("rotation" not in now and now["provider"] == "tpm2", f"exit status 0, but {now}")
        check(files(tree) == ["1.kek", "2.sealed", "keystore.json"], f"there is {files(tree)}")
        for number in self.there:
            check(self.generation(tree, tree.image(number)) == 2, f"device {number} has not moved")
            check(
                tree.backup(number).read_bytes() == read_part(tree.image(number), 0, HEADER_SIZE),
                f"the backup of device {number} differs from its header",
            )
        check(not tree.leftovers(), f"left over: {tree.leftovers()}")

    def again(self, tree, unsynced):
        now = store(tree)
        moved = now["provider"] == "tpm2" and "rotation" not in now
        self.use_tpm(tree)
        done = self.second(tree, unsynced)
        check(done.status == (5 if moved else 0), f"the second run: {done}")
        self.finished(tree)
        self.everything_opens(tree)
        self.drop_tpm(self.directory_of(tree))


def generation_of(place):
    tokens = [token for token in metadata(place)["tokens"].values() if token["type"] == "qs-keystore"]
    check(len(tokens) == 1, f"{len(tokens)} keystore tokens")
    return tokens[0]["generation"]
