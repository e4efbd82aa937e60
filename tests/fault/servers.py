"""Key servers for scenarios: what they keep is looked at behind the product's back, and a command is
killed at a message to them."""

import base64
import contextlib
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

from faultbench import HANG_S, check, must

TESTS = Path(__file__).resolve().parent.parent
KMIP_SERVER, VAULT_SERVER = TESTS / "kmip-server", TESTS / "vault-server"
WHERE = ("before", "behind")  # the server has acted


def number_in(file):
    return int(file.read_text(encoding="ascii"))


def lines_of(file):
    return file.read_text(encoding="ascii").splitlines() if file.exists() else []


def started(command):
    return subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )


def install(tree, directory, files):
    """Where a provider looks for it: {name: source}."""
    place = tree.conf / directory
    place.mkdir(exist_ok=True)
    for name, source in files.items():
        must("install", "-m", "0400", source, place / name)


class Recorder:
    """Passes on what is said to PORT and back, and keeps all of it."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.kept, self.target = self.listener.getsockname()[1], bytearray(), port
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.target))
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self.relay, args=ends, daemon=True).start()

    def relay(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.kept += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def stop(self):
        self.listener.close()


class Server:
    """What both kinds have: a recorder before it, if one is wanted."""

    recorder = None

    def record(self):
        self.recorder = Recorder(self.own_port())

    def port(self):
        return self.recorder.port if self.recorder else self.own_port()


class Kmip(Server):
    """The real server, and tests/kmip-double before it."""

    # Create, Activate, Revoke, Destroy, as kmip-double writes them.
    CHANGING = ("1", "12", "13", "14")

    def __init__(self, scratch):
        self.server, self.double = scratch / "kmip", scratch / "kmip-double"
        self.kept = 0

    def start(self):
        must(KMIP_SERVER, "start", self.server)
        rule = f"kill:{number_in(self.server / 'port')}"
        must(KMIP_SERVER, "double", self.double, self.server, rule, "server")

    def own_port(self):
        return number_in(self.double / "port")

    def stop(self):
        must(KMIP_SERVER, "stop", self.double)
        must(KMIP_SERVER, "stop", self.server)

    def setting(self, tree):
        """The lines of qs-util.conf, with all that they need."""
        certs = self.server / "certs"
        files = {"ca.pem": certs / "ca.crt", "client.pem": certs / "client.crt", "client.key": certs / "client.key"}
        install(tree, "kmip", files)
        return f'kmip_servers = "localhost:{self.port()}";\n'

    def base(self, *query):
        with closing(sqlite3.connect(self.server / "keys.db", timeout=HANG_S)) as base:
            found = base.execute(*query).fetchall()
            base.commit()
            return found

    def keys(self):
        """The identifiers of those that the server has."""
        return {str(row[0]) for row in self.base("SELECT uid FROM managed_objects")}

    def key(self, uid):
        found = self.base("SELECT value FROM managed_objects WHERE uid = ?", (uid,))
        check(found, f"the key server has no key {uid}")
        return found[0][0]

    def secrets(self):
        return {f"key {uid} of the key server": self.key(uid) for uid in self.keys()}

    def keep(self):
        """What is there now stays at reset(); identifiers only grow."""
        self.kept = max(map(int, self.keys()), default=0)

    def reset(self):
        for name in ("kill", "messages"):
            (self.double / name).unlink(missing_ok=True)
        self.base("DELETE FROM managed_object_names WHERE mo_uid > ?", (self.kept,))
        self.base("DELETE FROM managed_objects WHERE uid > ?", (self.kept,))

    def messages(self):
        """What it was asked for since reset()."""
        return lines_of(self.double / "messages")

    def changes(self, message):
        return message in self.CHANGING

    def kill(self, command, number, where):
        """All processes of COMMAND, at its message NUMBER."""
        (self.double / "kill").write_text(f"{number} {where}", encoding="ascii")
        # It leads a process group of its own, and its workers are in it.
        done = started(["sh", "-c", 'echo $$ >"$0"; exec "$@"', self.double / "victim", *command])
        _, err = done.communicate(timeout=HANG_S)
        check(done.returncode == -signal.SIGKILL, f"was not killed: {err.decode()}")


class Vault(Server):
    """tests/vault-double, of one age."""

    def __init__(self, scratch, age="1.14"):
        self.directory, self.age = scratch / "vault", age
        self.kept = set()

    def start(self):
        must(VAULT_SERVER, "start", self.directory, self.age)

    def own_port(self):
        return number_in(self.directory / "port")

    def stop(self):
        must(VAULT_SERVER, "stop", self.directory)

    def setting(self, tree):
        install(
            tree, "vault",
            {"ca.pem": self.directory / "certs/ca.crt", "secret-id": self.directory / "secret-id"},
        )
        role = (self.directory / "role-id").read_text(encoding="ascii").strip()
        return f'vault_servers = "localhost:{self.port()}"; vault_role_id = "{role}";\n'

    def admin(self, method, path, body=None):
        """Somebody with all rights asks; None: there is nothing."""
        request = urllib.request.Request(
            f"https://localhost:{self.own_port()}/v1/{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"X-Vault-Token": (self.directory / "token").read_text(encoding="ascii").strip()},
        )
        context = ssl.create_default_context(cafile=self.directory / "certs/ca.crt")
        try:
            with urllib.request.urlopen(request, context=context, timeout=HANG_S) as answer:
                text = answer.read()
        except urllib.error.HTTPError as refused:
            check(refused.code in (400, 404), f"{method} {path}: {refused}")
            return None
        return json.loads(text) if text else None

    def keys(self):
        listed = self.admin("LIST", "transit/keys")
        return set(listed["data"]["keys"]) if listed else set()

    def secrets(self):
        """What a login takes and gives."""
        given = {f"token {n}": text.encode() for n, text in enumerate(lines_of(self.directory / "tokens"))}
        return given | {"secret-id": (self.directory / "secret-id").read_bytes().strip()}

    def content(self, key, wrapped):
        answer = self.admin("POST", f"transit/decrypt/{key}", {"ciphertext": wrapped})
        check(answer, f"Vault does not decrypt what its key {key} has wrapped")
        return base64.b64decode(answer["data"]["plaintext"])

    def keep(self):
        self.kept = self.keys()

    def rule(self, text):
        new = self.directory / "rules.new"
        new.write_text(text, encoding="ascii")
        new.rename(self.directory / "rules")

    def reset(self):
        self.rule("")
        for key in self.keys() - self.kept:
            self.admin("POST", f"transit/keys/{key}/config", {"deletion_allowed": True})
            self.admin("DELETE", f"transit/keys/{key}")
        for name in ("held", "requests"):
            (self.directory / name).unlink(missing_ok=True)

    def messages(self):
        return lines_of(self.directory / "requests")

    def changes(self, message):
        method, path = message.split()[:2]
        return method != "GET" and "/keys/" in path

    def kill(self, command, number, where):
        held = self.directory / "held"
        self.rule(f"hold nth={number} when={'before' if where == 'before' else 'after'}\n")
        process = started(command)
        deadline = time.monotonic() + HANG_S
        while not held.exists() and process.poll() is None:
            check(time.monotonic() < deadline, "hangs")
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate(timeout=HANG_S)
        check(process.returncode == -signal.SIGKILL, f"was not killed: {err.decode()}")
        self.rule("")
