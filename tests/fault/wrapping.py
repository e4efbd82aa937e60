"""The scenarios of keys that stay at a key server: a keystore is enabled, and a generation made.
Each tree has a server of its own beside it; what that holds is read from its data base, and wrapped
keys are judged by that and no client."""

import base64
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from faultbench import Tree, check, must
from keystoring import directory, files, jwk_of
from rotating import Rotate, store
from sweep import Scenario

KMIP_SERVER = Path(__file__).resolve().parent.parent / "kmip-server"
CREDENTIALS = (("ca.crt", "ca.pem"), ("client.crt", "client.pem"), ("client.key", "client.key"))


def server_of(tree):
    return tree.root.parent / f"{tree.root.name}.server"


def query(tree, statement, *values):
    with closing(sqlite3.connect(server_of(tree) / "keys.db")) as base:
        return base.execute(statement, values).fetchall()


def names(tree):
    """Of the keys that the server has; it forgets no name of others."""
    found = query(tree, "SELECT name FROM managed_object_names WHERE mo_uid IN (SELECT uid FROM managed_objects)")
    return sorted(row[0] for row in found)


class AtServer(Rotate):
    """A tree's server is new, or begins with what the template's held."""

    provider = ("--provider", "kmip-wrap")

    def __init__(self, scratch):
        self.servers = []
        self.made = scratch / "made"
        super().__init__(scratch)
        self.drop(self.template, keep=True)

    def sweep(self, scratch, fault, choose=None):
        try:
            return super().sweep(scratch, fault, choose)
        finally:
            for running in self.servers:
                subprocess.run([KMIP_SERVER, "stop", running], check=False, capture_output=True)

    def configure(self, tree):
        """Start its server, if it does not run."""
        server = server_of(tree)
        if server in self.servers:
            return
        server.mkdir()
        for name in ("certs", "keys.db"):
            if (self.made / name).exists():
                must("cp", "-a", self.made / name, server)
        self.servers.append(server)
        must(KMIP_SERVER, "start", server)
        port = (server / "port").read_text(encoding="ascii").strip()
        certs = tree.conf / "kmip"
        certs.mkdir(exist_ok=True)
        for source, name in CREDENTIALS:
            must("install", "-m", "0400", server / "certs" / source, certs / name)
        (tree.conf / "qs-util.conf").write_text(
            f'workers = 1; kmip_servers = "localhost:{port}"; kmip_version = "2.0"; kmip_deadline = 60;\n',
            encoding="ascii",
        )

    def drop(self, tree, keep=False):
        server = server_of(tree)
        must(KMIP_SERVER, "stop", server)
        if keep:
            server.rename(self.made)
        else:
            shutil.rmtree(server)
        self.servers.remove(server)

    def record(self, scratch):
        tree = self.template.copy(scratch / "recorded")
        self.configure(tree)
        calls = self.recorded(tree, scratch / "record.log")
        self.drop(tree)
        return calls

    def strike(self, tree, call, fault, log):
        self.configure(tree)
        return super().strike(tree, call, fault, log)

    def again(self, tree, unsynced):
        self.proceed(tree, unsynced)
        self.drop(tree)

    def proceed(self, tree, unsynced):
        super().again(tree, unsynced)

    def nothing_is_left_there(self, tree):
        now = store(tree)
        wanted = [f"qs-util/{now['store']}/{one['number']}" for one in now["generations"]]
        check(names(tree) == sorted(wanted), f"the server has {names(tree)}, and not {wanted}")


class RotateThere(AtServer):
    """One device is there."""

    enable = (*Rotate.enable, *AtServer.provider)
    there, away = (1,), ()

    def jwk(self, tree, token):
        form, version, cipher, *parts = token["jwe"]["header"]["qs-wrapped"].split(":")
        check((form, version, cipher) == ("kmip", "v1", "aes-gcm"), f"wrapped as {form} {version} {cipher}")
        uid, iv, data, tag = map(base64.b64decode, parts)
        found = query(tree, "SELECT value FROM managed_objects WHERE uid = ?", int(uid))
        check(found, f"the key {uid} is gone from the server")
        return jwk_of(AESGCM(found[0][0]).decrypt(iv, data + tag, None))

    def finished(self, tree):
        super().finished(tree)
        self.nothing_is_left_there(tree)


class EnableThere(AtServer):
    """Its first generation is made."""

    words = (*Rotate.enable, *AtServer.provider)

    def __init__(self, scratch):
        self.servers = []
        self.made = scratch / "made"
        Scenario.__init__(self, Tree.make(scratch / "template"))
        self.configure(self.template)
        self.drop(self.template, keep=True)

    def everything_opens(self, tree):
        """There is nothing yet."""

    def is_finished(self, tree):
        return files(tree) == ["1.kmip", "keystore.json"] and store(tree)["state"] == "enabled"

    def inspect(self, tree, done, call, fault):
        super().inspect(tree, done, call, fault)
        if done.status > 0 and "same command again" not in done.err:
            check(files(tree) == [], f"a failed enabling leaves {files(tree)}")
            check(names(tree) == [], f"a failed enabling leaves {names(tree)} at the server")

    def finished(self, tree):
        check(self.is_finished(tree), f"not enabled: {files(tree)}")
        check((directory(tree) / "1.kmip").stat().st_mode & 0o7777 == 0o400, "others may look at 1.kmip")
        self.nothing_is_left_there(tree)
        check(not tree.leftovers(), f"left over: {tree.leftovers()}")

    def proceed(self, tree, unsynced):
        expected = 5 if self.is_finished(tree) else 0
        done = self.second(tree, unsynced)
        check(done.status == expected, f"the second run: {done}")
        self.finished(tree)
