"""The scenarios of keys for some devices only: a device is formatted with one, changed to it, and
taken back. The double of a Vault server has the key; what it wrapped is asked for by its
administrator, and opened by jose and cryptsetup alone."""

import base64
import json
import ssl
import urllib.request
from pathlib import Path

from faultbench import HEADER_SIZE, check, digest, is_luks, must, opens
from keyless import FormatKeyless, KeylessTree
from keystoring import directory, files, files_of, jwk_of, kek_in_file, token_of, unwrap
from rotating import Rotate, store

VAULT_SERVER = Path(__file__).resolve().parent.parent / "vault-server"
KEY = "qs-one"


class Server:
    """The double, with one key of its administrator's."""

    def __init__(self, directory_of):
        self.directory = directory_of
        must(VAULT_SERVER, "start", self.directory, "1.14")
        self.keys = {}  # content keys, by how they are wrapped
        self.ask(f"transit/keys/{KEY}", {})

    def stop(self):
        must(VAULT_SERVER, "stop", self.directory)

    def text(self, name):
        return (self.directory / name).read_text(encoding="ascii").strip()

    def ask(self, path, body):
        request = urllib.request.Request(
            f"https://localhost:{self.text('port')}/v1/{path}", json.dumps(body).encode(),
            {"X-Vault-Token": self.text("token")},
        )
        context = ssl.create_default_context(cafile=self.directory / "certs/ca.crt")
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            return json.load(answer)["data"]

    def content_key(self, wrapped):
        if wrapped not in self.keys:
            text = self.ask(f"transit/decrypt/{KEY}", {"ciphertext": wrapped})["plaintext"]
            self.keys[wrapped] = base64.b64decode(text)
        return self.keys[wrapped]

    def make_known(self, tree):
        """What a machine knows of it."""
        vault = tree.conf / "vault"
        vault.mkdir()
        for source, name in (("certs/ca.crt", "ca.pem"), ("secret-id", "secret-id")):
            must("install", "-m", "0400", self.directory / source, vault / name)
        (tree.conf / "qs-util.conf").write_text(
            f'workers = 1; vault_servers = "localhost:{self.text("port")}"; vault_role_id = "{self.text("role-id")}";\n',
            encoding="ascii",
        )


def recover(server, tree, place):
    """By which generation what is in the header of PLACE opens it."""
    token, key = token_of(place), tree.root.parent / f"{tree.root.name}.recovered"
    wrapped = token["jwe"]["header"].get("qs-wrapped")
    jwk = jwk_of(server.content_key(wrapped)) if wrapped else kek_in_file(tree, token["generation"])
    unwrap(tree, token, jwk, key)
    check(opens(place, key), f"what the keystore wrapped does not open {place}")
    return token["generation"]


def is_whole(tree):
    now = store(tree)
    check(not any(one.get("begun") for one in now["generations"]), f"begun: {now}")
    check(files(tree) == files_of(now), f"{now} and there is {files(tree)}")
    check(not tree.leftovers(), f"left over: {tree.leftovers()}")
    return now


class Change(Rotate):
    """A device goes from the keystore's own key to another, beside one that stays."""

    words = ("keystore", "rewrap", "--kms-key", KEY, "/dev/disk/by-id/scsi-30001")
    there, away = (1, 2), ()
    before = ()

    def __init__(self, scratch):
        self.server = Server(scratch / "server")
        tree = KeylessTree.make(scratch / "template", count=2)
        self.server.make_known(tree)
        must(*tree.command("--yes", "keystore", "enable"))
        must(*tree.command("cryptformat", "--no-open", *self.before, tree.link(1), tree.link(2)))
        self.judged = {}
        super(Rotate, self).__init__(tree)

    def stop(self):
        self.server.stop()

    def generation(self, tree, place):
        content = (digest(place, 0, HEADER_SIZE), (directory(tree) / "keystore.json").read_bytes())
        if content not in self.judged:
            self.judged[content] = recover(self.server, tree, place)
        found = self.judged[content]
        # Which of the server's keys that is must be known, too.
        check(found == 1 or f"{found}.vault" in files(tree), f"{found}.vault is missing")
        return found

    def lands_on(self, now):
        return max(one["number"] for one in now["generations"])

    def finished(self, tree):
        now = is_whole(tree)
        found = self.generation(tree, tree.image(1))
        check(found == self.lands_on(now), f"{found} of {now}")
        for number in self.there:
            check(
                digest(tree.backup(number)) == digest(tree.image(number), 0, HEADER_SIZE),
                "a backup differs from its header",
            )

    def again(self, tree, unsynced):
        done = self.second(tree, unsynced)
        check(done.status == 0, f"the second run: {done}")
        self.finished(tree)
        self.everything_opens(tree)
        check(tree.qs("keystore", "verify").status == 0, "keystore verify fails")


class Revert(Change):
    """One of two devices goes back to the keystore's own key."""

    words = ("keystore", "rewrap", "--cluster-key", "/dev/disk/by-id/scsi-30001")
    before = ("--kms-key", KEY)

    def lands_on(self, now):
        return now["current"]


class FormatKey(FormatKeyless):
    """cryptformat of a device with such a key, which is made known by that."""

    def __init__(self, scratch):
        self.server = Server(scratch / "server")
        super().__init__(scratch)
        self.words = ("cryptformat", "--no-open", "--kms-key", KEY, self.template.link())

    def prepare(self, tree):
        self.server.make_known(tree)

    def stop(self):
        self.server.stop()

    def opens(self, tree, place):
        return recover(self.server, tree, place) == 2

    def is_done(self, tree):
        super().is_done(tree)
        check(is_luks(tree.image()), "not formatted")
        is_whole(tree)
