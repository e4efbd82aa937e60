"""The scenarios of rotations with a TPM: into it, out of it, and from one of its keys to the next,
with two devices there and one away."""

import functools
import json

from faultbench import check, must
from keystoring import directory, kek_in_file
from rotating import Rotate, store
from tpm import TpmScenario


@functools.cache
def escrow_key():
    return must("openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072").out


class BesideTpm(Rotate, TpmScenario):
    """A TPM takes part."""

    def __init__(self, scratch):
        super().__init__(scratch)
        if self.directory_of(self.template).exists():
            self.keep_tpm(self.template)

    def record(self, scratch):
        # Its copy finds the TPM by the configuration, which names the template's.
        self.use_tpm(self.template)
        return super().record(scratch)

    def strike(self, tree, call, fault, log):
        self.use_tpm(tree)
        return super().strike(tree, call, fault, log)

    def again(self, tree, unsynced):
        self.use_tpm(tree)
        super().again(tree, unsynced)
        self.drop_tpm(self.directory_of(tree))


class Sealed(BesideTpm):
    """Every device and backup opens at every point, by what the TPM or the file of its generation gives."""

    def __init__(self, scratch):
        self.jwks = {}  # what the TPM was asked for, by what it had sealed
        self.private, self.escrow = scratch / "escrow.key", scratch / "escrow.pub"
        self.private.write_text(escrow_key())
        must("openssl", "pkey", "-in", self.private, "-pubout", "-out", self.escrow)
        super().__init__(scratch)

    def jwk(self, tree, token):
        number = token["generation"]
        file = directory(tree) / f"{number}.sealed"
        if not file.exists():
            return kek_in_file(tree, number)
        sealed = file.read_bytes()
        if sealed not in self.jwks:
            self.jwks[sealed] = self.exported(tree, number)
        return self.jwks[sealed]

    def exported(self, tree, number):
        """A generation as the TPM gives it, by export and openssl."""
        self.use_tpm(tree)
        exported, jwk = tree.root.parent / f"{tree.root.name}.rsa", tree.root.parent / f"{tree.root.name}.exported"
        words = ("keystore", "export", "--generation", number, "--public-key", self.escrow, "--output", exported)
        must(*tree.command(*words, "--force"))
        oaep = ("-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha256")
        must("openssl", "pkeyutl", "-decrypt", "-inkey", self.private, *oaep, "-in", exported, "-out", jwk)
        return json.loads(jwk.read_text())


class Migration(Rotate):
    """To the provider PROVIDER."""

    provider = ""

    def finished(self, tree):
        super().finished(tree)
        check(store(tree)["provider"] == self.provider, f"the provider is {store(tree)['provider']}")
        check(store(tree)["current"] == 2, f"generation {store(tree)['current']}")

    def again(self, tree, unsynced):
        now = store(tree)
        moved = now["provider"] == self.provider and "rotation" not in now
        done = self.second(tree, unsynced)
        check(done.status == (5 if moved else 0), f"the second run: {done}")
        self.finished(tree)
        self.everything_opens(tree)


class IntoTpm(Sealed, Migration):
    words = ("--yes", "keystore", "migrate", "--provider", "tpm2", "--pcrs", "none")
    provider = "tpm2"


class RotateSealed(Sealed):
    enable = (*Rotate.enable, "--provider", "tpm2", "--pcrs", "none")

    def configure(self, tree):
        self.use_tpm(tree)


class OutOfTpm(RotateSealed, Migration):
    words = ("--yes", "keystore", "migrate", "--provider", "local")
    provider = "local"
