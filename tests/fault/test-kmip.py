#!/usr/bin/python3 -B
"""A keystore at a key server, killed at every message to it: before the message is there, and when
it is done and the answer is not back. A second run ends it, and the server has no key more or less.

tests/kmip-double stands between: it kills the whole command at the message that is wanted. Points
follow each other in one tree, since what is left at the server is what counts."""

import json
import os
import sqlite3
import subprocess
from contextlib import closing, contextmanager
from pathlib import Path

from faultbench import HANG_S, Tree, check, main, must
from keystoring import directory, files, state

KMIP_SERVER = Path(__file__).resolve().parent.parent / "kmip-server"
CHANGING = {"1", "12", "13", "14"}  # Create, Activate, Revoke, Destroy, as kmip-double writes them
STRIDE = 1 if os.environ.get("QS_FAULT_ALL") else 9


class Bench:
    """The real server, the double before it, and a tree with one device that asks the double."""

    def __init__(self, scratch):
        self.server, self.double = scratch / "server", scratch / "double"
        self.tree = Tree.make(scratch / "tree")
        self.conf = self.tree.conf

    def start(self):
        must(KMIP_SERVER, "start", self.server)
        port = (self.server / "port").read_text(encoding="ascii").strip()
        must(KMIP_SERVER, "double", self.double, self.server, f"kill:{port}", "server")
        certs = self.conf / "kmip"
        certs.mkdir()
        for source, name in (("ca.crt", "ca.pem"), ("client.crt", "client.pem"), ("client.key", "client.key")):
            must("install", "-m", "0400", self.server / "certs" / source, certs / name)
        port = (self.double / "port").read_text(encoding="ascii").strip()
        (self.conf / "qs-util.conf").write_text(f'kmip_servers = "localhost:{port}";\n', encoding="ascii")
        return self

    def stop(self):
        must(KMIP_SERVER, "stop", self.double)
        must(KMIP_SERVER, "stop", self.server)

    def keys(self):
        with closing(sqlite3.connect(self.server / "keys.db")) as base:
            return base.execute("SELECT COUNT(*) FROM managed_objects").fetchone()[0]

    def messages(self, *words):
        """The operations that a run of this command asks for."""
        path = self.double / "messages"
        before = len(path.read_text(encoding="ascii").splitlines()) if path.exists() else 0
        must(*self.tree.command(*words))
        return path.read_text(encoding="ascii").splitlines()[before:]

    def kill(self, words, number, where):
        (self.double / "kill").write_text(f"{number} {where}", encoding="ascii")
        # It leads a process group of its own, and its workers are in it.
        command = ["sh", "-c", 'echo $$ >"$0"; exec "$@"', self.double / "victim", *self.tree.command(*words)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=HANG_S, check=False,
            start_new_session=True,
        )
        check(done.returncode == -9, f"was not killed: {done.stderr.decode()}")

    def points(self, operations):
        """(number, where): around whatever changes something, and every STRIDEth of the others."""
        found = [
            (number, where, operation in CHANGING)
            for number, operation in enumerate(operations, 1)
            for where in ("before", "behind")
        ]
        return [(n, where) for index, (n, where, always) in enumerate(found) if always or index % STRIDE == 0]


@contextmanager
def bench(scratch):
    made = Bench(scratch)
    try:
        yield made.start()
    finally:
        made.stop()


ENABLE = ("--yes", "keystore", "enable", "--provider", "kmip")
DISABLE = ("--yes", "keystore", "disable")
ROTATE = ("keystore", "rotate", "--force")


def enabled(scratch):
    """enabling and disabling at a key server, killed at every message"""
    with bench(scratch) as b:
        asked = b.messages(*ENABLE), b.messages(*DISABLE)
        check(b.keys() == 0, "a key is left")
        for number, where in b.points(asked[0]):
            b.kill(ENABLE, number, where)
            done = b.tree.qs(*ENABLE)
            check(done.status == 0 or state(b.tree) == "enabled", f"{number} {where}: the second run: {done}")
            check(b.keys() == 1, f"{number} {where}: the server has {b.keys()} keys")
            must(*b.tree.command(*DISABLE))
            check(b.keys() == 0, f"{number} {where}: a key is left")
        for number, where in b.points(asked[1]):
            must(*b.tree.command(*ENABLE))
            b.kill(DISABLE, number, where)
            must(*b.tree.command(*DISABLE))
            check(b.keys() == 0 and not files(b.tree), f"{number} {where}: {b.keys()} keys, {files(b.tree)}")
        return f"{len(b.points(asked[0]))} and {len(b.points(asked[1]))} points"


def rotated(scratch):
    """a rotation at a key server, killed at every message: the device opens, and nothing is left"""
    with bench(scratch) as b:
        link = b.tree.link()
        must(*b.tree.command("cryptformat", "--no-open", link))
        must(*b.tree.command(*ENABLE))
        must(*b.tree.command("cryptenroll", link, "--keystore"))
        b.tree.key().unlink()
        must(*b.tree.command(*ROTATE))
        asked = b.messages(*ROTATE)
        for number, where in b.points(asked):
            b.kill(ROTATE, number, where)
            opened = b.tree.qs("cryptopen", "--test", link)
            check(opened.status == 0, f"{number} {where}: does not open: {opened}")
            must(*b.tree.command(*ROTATE))
            check(b.keys() == 2, f"{number} {where}: the server has {b.keys()} keys")
            must(*b.tree.command("keystore", "verify"))
            found = json.loads((directory(b.tree) / "keystore.json").read_text(encoding="ascii"))
            names = [f"{one['number']}.kmip" for one in found["generations"]]
            check(files(b.tree) == sorted([*names, "keystore.json"]), f"{number} {where}: {files(b.tree)}")
        return f"{len(b.points(asked))} points"


main(enabled, rotated)
