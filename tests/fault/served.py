"""The scenarios of keystores at key servers. A sweep takes its points one after the other, as all
trees are copies of one and have the same keys at the server, which begins anew with each."""

import json
import os
import re
import threading

from faultbench import Broken, check, explain, must, remove
from keystoring import directory, files, files_of, jwk_of, kek_in_file
from migrating import BesideTpm, Migration
from rotating import Move, Rotate, store
from servers import WHERE, Kmip, Vault
from tpm import TpmScenario


class Served(Rotate):
    """KINDS of servers, as the providers of generations."""

    kinds = ()

    def __init__(self, scratch):
        self.lock = threading.Lock()
        self.servers = {kind: {"kmip": Kmip, "vault": Vault}[kind](scratch) for kind in self.kinds}
        try:
            for server in self.servers.values():
                server.start()
            super().__init__(scratch)
            for server in self.servers.values():
                server.keep()
        except BaseException:
            self.stop()
            raise

    def stop(self):
        for server in self.servers.values():
            server.stop()

    def configure(self, tree):
        lines = [server.setting(tree) for server in self.servers.values()]
        (tree.conf / "qs-util.conf").write_text("".join(lines), encoding="ascii")

    def reset(self):
        for server in self.servers.values():
            server.reset()

    def one_point(self, *point):
        with self.lock:
            self.reset()
            super().one_point(*point)

    def record_of(self, tree, number, kind):
        file = directory(tree) / f"{number}.{kind}"
        return json.loads(file.read_text(encoding="ascii")) if file.exists() else None

    def jwk(self, tree, token):
        number = token["generation"]
        if record := self.record_of(tree, number, "kmip"):
            return jwk_of(self.servers["kmip"].key(record["uid"])) | {"alg": "A256GCMKW"}
        if record := self.record_of(tree, number, "vault"):
            return jwk_of(self.servers["vault"].content(record["key"], token["jwe"]["header"]["qs-wrapped"]))
        return kek_in_file(tree, number)

    def inspect(self, tree, done, call, fault):
        super().inspect(tree, done, call, fault)
        if done.status > 0 and "rotation" not in store(tree):
            # Without a record Vault's is not erased by a keystore that is enabled: the next run takes it.
            self.servers_have_what_is_recorded(tree, {f"qs-util-{store(tree)['store']}"})

    def finished(self, tree):
        super().finished(tree)
        self.servers_have_what_is_recorded(tree)

    def servers_have_what_is_recorded(self, tree, allowed=frozenset()):
        for kind, field in (("kmip", "uid"), ("vault", "key")):
            numbers = [name.split(".")[0] for name in files(tree) if name.endswith(f".{kind}")]
            named = {self.record_of(tree, number, kind)[field] for number in numbers}
            if kind in self.servers:
                has = self.servers[kind].keys()
                check(has - allowed == named - allowed, f"{kind}: the server has the keys {has}, and recorded are {named}")

    def exchanges(self, scratch, kind):
        """The messages of a run without faults."""
        self.reset()
        tree = self.template.copy(scratch / "counted")
        self.configure(tree)
        must(*tree.command(*self.words))
        remove(tree.root)
        return self.servers[kind].messages()

    def kill_exchanges(self, scratch, kind, stride):
        """Kill the command around each message to a server: those that change something, and every
        STRIDEth of the others. Returns how many."""
        messages = self.exchanges(scratch, kind)
        step = 1 if os.environ.get("QS_FAULT_ALL") else stride
        points = [(n, where, self.servers[kind].changes(text)) for n, text in enumerate(messages, 1) for where in WHERE]
        points = [(n, where) for at, (n, where, always) in enumerate(points) if always or at % step == 0]
        check(points, "there is no such message")
        for number, where in points:
            self.reset()
            tree = self.template.copy(scratch / f"{kind}-{number}-{where}")
            self.configure(tree)
            try:
                self.servers[kind].kill(tree.command(*self.words), number, where)
                self.everything_opens(tree)
                self.again(tree, None)
            except (Broken, RuntimeError) as error:
                raise Broken(f"{where} message {number} ({messages[number - 1]}): {explain(error)}") from None
            remove(tree.root)
        return len(points)


class RotateAtKmip(Served):
    kinds = ("kmip",)
    enable = (*Rotate.enable, "--provider", "kmip")


class RotateAtVault(Served):
    """The server rewraps what the devices' headers hold."""

    kinds = ("vault",)
    enable = (*Rotate.enable, "--provider", "vault")

    def exchanges(self, scratch, kind):
        """The first run has made the version that all others find: keystore-vault.bats kills that one."""
        super().exchanges(scratch, kind)
        return super().exchanges(scratch, kind)


class IntoKmip(Served, Migration):
    kinds = ("kmip",)
    words = ("--yes", "keystore", "migrate", "--provider", "kmip")
    provider = "kmip"


class KmipIntoVault(Served, Migration):
    kinds = ("kmip", "vault")
    enable = (*Rotate.enable, "--provider", "kmip")
    words = ("--yes", "keystore", "migrate", "--provider", "vault")
    provider = "vault"

    def ends_orderly(self, done, call):
        """A lease of what is left behind ends by itself: that it could not be erased is a warning."""
        if done.status != 0 or "warning: the lease of generation" not in done.err:
            super().ends_orderly(done, call)


class OutOfVault(Served, Migration):
    kinds = ("vault",)
    enable = (*Rotate.enable, "--provider", "vault")
    words = ("--yes", "keystore", "migrate", "--provider", "local")
    provider = "local"


class MoveToVault(Served, Move):
    """A device with a key file goes into a keystore whose KEK Vault has."""

    kinds = ("vault",)
    enable = (*Rotate.enable, "--provider", "vault")


class Lease(Served, BesideTpm):
    """A check keeps the key under the TPM."""

    kinds = ("kmip",)
    there, away = (1,), ()
    enable = (*Rotate.enable, "--provider", "kmip")
    words = ("keystore", "check")
    pcrs = (7,)  # to which it is sealed

    def __init__(self, scratch):
        super().__init__(scratch)
        self.template.key().unlink()
        (self.template.root / "var/lib/qs-util").mkdir(parents=True)

    def stop(self):
        super().stop()
        TpmScenario.stop(self)

    def configure(self, tree):
        self.settings = self.servers["kmip"].setting(tree) + 'kms_lease = "168h";\n'
        self.use_tpm(tree)

    def ends_orderly(self, done, call):
        """That the server can be asked is what counts: of the lease there is a warning."""
        check(done.status in range(8), "ends in no orderly way")
        check(done.status == 0 or "qs-util keystore: " in done.err, "says nothing")

    def inspect(self, tree, done, call, fault):
        self.everything_opens(tree)
        if fault.kills:
            return
        self.ends_orderly(done, call)
        if done.status == 0 and "warning: the lease" not in done.err:
            self.finished(tree)

    def opens_without_server(self, tree):
        self.use_tpm(tree)
        conf = tree.conf / "qs-util.conf"
        text = conf.read_text()
        conf.write_text(re.sub("localhost:[0-9]+", "localhost:1", text))
        done = tree.qs("cryptopen", "--test", tree.link())
        conf.write_text(text)
        check(done.status == 0 and "the lease is used" in done.err, f"does not open by its lease: {done}")

    def finished(self, tree):
        expected = sorted([*files_of(store(tree)), "1.lease", "1.sealed"])
        check(files(tree) == expected, f"there is {files(tree)}")
        check(not tree.leftovers(), f"left over: {tree.leftovers()}")
        self.opens_without_server(tree)


class LeaseRenewed(Lease):
    """There was one, which is good until there is another."""

    def __init__(self, scratch):
        super().__init__(scratch)
        self.use_tpm(self.template)
        must(*self.template.command(*self.words))
        self.keep_tpm(self.template)

    def everything_opens(self, tree):
        super().everything_opens(tree)
        self.opens_without_server(tree)
