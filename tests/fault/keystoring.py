"""The scenarios of the keystore: enabled, disabled, a device enrolled."""

import base64
import json
import subprocess

from enrolling import Enroll, metadata
from faultbench import Tree, check, content, must, opens
from sweep import Scenario
from tpm import TpmScenario


def directory(tree):
    return tree.conf / "keystore"


def files(tree):
    """Names in the keystore, but temporaries."""
    if not directory(tree).exists():
        return []
    return sorted(path.name for path in directory(tree).iterdir() if not path.name.startswith("."))


def state(tree):
    return json.loads((directory(tree) / "keystore.json").read_text(encoding="ascii"))["state"]


# How the file of a generation ends, by its provider.
ENDINGS = {"local": "kek", "tpm2": "sealed", "kmip": "kmip", "kmip-wrap": "kmip", "vault": "vault"}


def files_of(store):
    """What lies in the keystore when it is as its keystore.json says."""
    ends = [ENDINGS[one.get("provider", store["provider"])] for one in store["generations"]]
    names = [f"{one['number']}.{end}" for one, end in zip(store["generations"], ends)]
    return sorted([*names, "keystore.json"])


def token_of(image):
    """The keystore's token in a header."""
    tokens = [token for token in metadata(image)["tokens"].values() if token["type"] == "qs-keystore"]
    check(len(tokens) == 1, f"{len(tokens)} keystore tokens")
    return tokens[0]


def jwk_of(key):
    return {"kty": "oct", "k": base64.urlsafe_b64encode(key).decode().rstrip("=")}


def kek_in_file(tree, generation):
    return jwk_of((directory(tree) / f"{generation}.kek").read_bytes()) | {"alg": "A256GCMKW"}


def unwrap(tree, token, jwk, key):
    """What TOKEN wraps, into the file KEY, by jose alone."""
    jwe, key_file = tree.root.parent / f"{tree.root.name}.jwe", tree.root.parent / f"{tree.root.name}.jwk"
    jwe.write_text(json.dumps(token["jwe"]))
    key_file.write_text(json.dumps(jwk))
    done = subprocess.run(["jose", "jwe", "dec", "-i", jwe, "-k", key_file], stdout=subprocess.PIPE, check=False)
    check(done.returncode == 0, "jose does not unwrap the device key")
    key.write_bytes(done.stdout[:64])


def recover(tree, image, key):
    """What the keystore wrapped for IMAGE, into the file KEY. Returns the generation."""
    token = token_of(image)
    unwrap(tree, token, kek_in_file(tree, token["generation"]), key)
    return token["generation"]


class Store(Scenario):
    """One command on the keystore itself, in one process."""

    when_done = 0

    def inspect(self, tree, done, call, fault):
        if fault.kills:
            return
        self.ends_orderly(done, call)
        if done.status == 0:
            self.finished(tree)
        elif "same command again" not in done.err:
            self.undone(tree)

    def finished(self, tree):
        """All that exit status 0 promises."""

    def undone(self, tree):
        """What a failure that names nothing left over leaves."""

    def is_finished(self, tree):
        """The work is done, though that run did not come to say so."""

    def again(self, tree, unsynced):
        expected = self.when_done if self.is_finished(tree) else 0
        done = self.second(tree, unsynced)
        check(done.status == expected, f"the second run: {done}")
        self.finished(tree)
        check(not tree.leftovers(), f"left over: {tree.leftovers()}")


class Enable(Store):
    """Its first generation is made."""

    words = ("--yes", "keystore", "enable")
    when_done = 5

    def __init__(self, scratch):
        super().__init__(Tree.make(scratch / "template"))

    def is_finished(self, tree):
        return files(tree) == ["1.kek", "keystore.json"] and state(tree) == "enabled"

    def finished(self, tree):
        check(self.is_finished(tree), f"not enabled: {files(tree)}")
        kek = directory(tree) / "1.kek"
        check(kek.stat().st_mode & 0o7777 == 0o400 and kek.stat().st_size == 32, "the KEK's file is not right")
        check(directory(tree).stat().st_mode & 0o7777 == 0o700, "others may look into the keystore")

    def undone(self, tree):
        check(files(tree) == [], f"a failed enabling leaves {files(tree)}")


class EnableTpm2(Enable, TpmScenario):
    """The same, and its key is sealed in the TPM."""

    words = (*Enable.words, "--provider", "tpm2", "--pcrs", "none")
    gates = ()

    def __init__(self, scratch):
        super().__init__(scratch)
        private, self.escrow = scratch / "escrow.key", scratch / "escrow.pub"
        must("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", private)
        must("openssl", "pkey", "-in", private, "-pubout", "-out", self.escrow)

    def is_finished(self, tree):
        return files(tree) == ["1.sealed", "keystore.json"] and state(tree) == "enabled"

    def finished(self, tree):
        check(self.is_finished(tree), f"not enabled: {files(tree)}")
        sealed = directory(tree) / "1.sealed"
        check(sealed.stat().st_mode & 0o7777 == 0o600, "others may look at what is sealed")
        self.use_tpm(tree)
        kek = tree.root.parent / f"{tree.root.name}.kek"
        done = tree.qs("keystore", "export", "--public-key", self.escrow, "--output", kek, "--force")
        check(done.status == 0, f"the TPM does not give the key: {done}")

    def again(self, tree, unsynced):
        self.use_tpm(tree)
        super().again(tree, unsynced)
        self.drop_tpm(self.directory_of(tree))


class Disable(Store):
    """A keystore on which nothing depends is erased."""

    words = ("--yes", "keystore", "disable")
    when_done = 1

    def __init__(self, scratch):
        tree = Tree.make(scratch / "template")
        must(*tree.command("--yes", "keystore", "enable"))
        super().__init__(tree)

    def is_finished(self, tree):
        return "keystore.json" not in files(tree)

    def finished(self, tree):
        check(files(tree) == [], f"disabled, but there is {files(tree)}")

    def inspect(self, tree, done, call, fault):
        super().inspect(tree, done, call, fault)
        found = files(tree)
        check("keystore.json" in found or not found, f"without keystore.json there is still {found}")


class Keystore(Enroll):
    """A device gets a keyslot of the keystore's."""

    option = "--keystore"
    when_done = 0  # that is another replacement

    def prepare(self, tree):
        must(*tree.command("--yes", "keystore", "enable"))
        self.words = ("cryptenroll", tree.link(), "--keystore")
        self.store = {path.name: content(path) for path in directory(tree).iterdir()}

    def inspect(self, tree, done, call, fault):
        super().inspect(tree, done, call, fault)
        self.store_is_untouched(tree)

    def store_is_untouched(self, tree):
        found = {path.name: content(path) for path in directory(tree).iterdir()}
        check(found == self.store, "the keystore was written to")

    def finished(self, tree):
        super().finished(tree)
        self.store_is_untouched(tree)
        key = tree.root.parent / f"{tree.root.name}.recovered"
        recover(tree, tree.image(), key)
        check(opens(tree.image(), key), "what the keystore wrapped does not open the device")
        check(opens(tree.backup(), key), "what the keystore wrapped does not open the backup")
        slots = sorted(metadata(tree.image())["keyslots"])
        check(len(slots) == 3, f"keyslots: {slots}")
