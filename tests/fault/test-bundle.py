#!/usr/bin/python3 -B
"""keybackup and keyrestore under faults: a bundle is whole or not there, a file old or new, a key
never lost, and no byte of a key where it does not belong. openssl and tar judge."""

import resource
import secrets
import shutil
import stat
import subprocess
import tarfile
import time

from faultbench import (
    ENVIRONMENT,
    FOREIGN_TAB,
    Tree,
    check,
    content,
    main,
    must,
)
from mounts import mounted, private_mounts, read_only
from sweep import FULL, KILL, READ_ERROR, STAYS_FULL, WRITE_ERROR, Scenario, swept
from traced import children_of

BUNDLE = "/var/keys.cms"  # below the root
CONF = "workers = 2;\n"


def certificate(scratch):
    """A private key and its certificate in SCRATCH; returns their names, ready for a command."""
    key, cert = scratch / "backup.pem", scratch / "backup.crt"
    if not key.exists():
        must(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=backup", "-days", "2"),
        )
    return key, cert


def private(path, data):
    path.write_bytes(data)
    path.chmod(0o400)


def filled(scratch, name="template"):
    """Two keys, a header backup, a configuration, and a line for the first: no disk is needed."""
    tree = Tree.make(scratch / name, 0)
    tree.pending.rmdir()
    for number in (1, 2):
        private(tree.key(number), secrets.token_bytes(64))
    tree.backup(1).write_bytes(secrets.token_bytes(8192))
    (tree.conf / "qs-util.conf").write_text(CONF)
    tree.crypttab.write_text(FOREIGN_TAB + tree.line(1))
    return tree


def bundle_of(tree):
    return tree.root / BUNDLE[1:]


def unpacked(bundle, key, where):
    """What stock tools make of a bundle: {member: content}."""
    archive = where / f"{bundle.parent.parent.name}.tar"
    must("openssl", "cms", "-decrypt", "-inform", "DER", "-in", bundle, "-inkey", key, "-out", archive)
    with tarfile.open(archive) as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}
    archive.unlink()
    return found


def members_of(tree):
    """All that a bundle of TREE has to hold, but its manifest."""
    held = {f"cryptconf/{path.relative_to(tree.conf)}": path for path in tree.conf.rglob("*") if path.is_file()}
    held["crypttab"] = tree.crypttab
    return {name: path.read_bytes() for name, path in held.items()}


def ends_orderly(tree, done, call, fault):
    """A command that was not killed says what failed, and tidies up."""
    if fault.kills:
        return
    check(done.status in range(8), "ends in no orderly way")
    check(done.status == 0 or "qs-util key" in done.err, "says nothing")
    if "unlink" not in call.name:
        check(not tree.leftovers(), f"left over: {tree.leftovers()}")


class Backup(Scenario):
    """keybackup where there is no bundle yet."""

    gates = ()
    before = None

    def __init__(self, scratch):
        self.scratch = scratch
        self.key, cert = certificate(scratch)
        tree = filled(scratch)
        if self.before:
            must(*tree.command("keybackup", "--to", cert, BUNDLE))
            private(tree.key(3), secrets.token_bytes(64))
        self.before = content(bundle_of(tree))
        self.sources = members_of(tree)
        super().__init__(tree)
        self.words = ("keybackup", "--force", "--to", cert, BUNDLE)

    def is_whole(self, tree):
        found = unpacked(bundle_of(tree), self.key, self.scratch)
        found.pop("manifest.json")
        check(found == self.sources, f"the bundle holds {sorted(found)}")
        check(stat.S_IMODE(bundle_of(tree).stat().st_mode) == 0o600, "the bundle is not private")

    def inspect(self, tree, done, call, fault):
        check(members_of(tree) == self.sources, "keybackup changed what it reads")
        now = content(bundle_of(tree))
        if now != self.before:
            check(now is not None, "the old bundle is gone")
            self.is_whole(tree)
        if done.status == 0:
            check(now != self.before, "exit status 0, and no new bundle")
        ends_orderly(tree, done, call, fault)

    def again(self, tree, unsynced):
        done = self.second(tree, unsynced)
        check(done.status == 0, f"the second run: {done}")
        self.is_whole(tree)
        check(not tree.leftovers(), f"left over: {tree.leftovers()}")


class BackupAgain(Backup):
    """keybackup --force over an older bundle."""

    before = True


class Restore(Scenario):
    """keyrestore --force where one key, the configuration and the line are gone and a key differs."""

    gates = ()

    def __init__(self, scratch):
        key, cert = certificate(scratch)
        tree = filled(scratch)
        must(*tree.command("keybackup", "--to", cert, BUNDLE))
        self.new = {path: path.read_bytes() for path in self.files(tree)}
        tree.key(1).unlink()
        tree.backup(1).unlink()
        (tree.conf / "headers").rmdir()
        (tree.conf / "qs-util.conf").unlink()
        self.differing = secrets.token_bytes(64)
        tree.key(2).chmod(0o600)
        private(tree.key(2), self.differing)
        tree.crypttab.write_text(FOREIGN_TAB)
        self.old = {path: content(path) for path in self.new}
        self.template_root = tree.root
        super().__init__(tree)
        self.words = ("keyrestore", "--force", "--yes", "--key-file", key, BUNDLE)

    @staticmethod
    def files(tree):
        return [tree.key(1), tree.key(2), tree.backup(1), tree.conf / "qs-util.conf", tree.crypttab]

    def each(self, tree):
        for path in self.new:
            yield tree.root / path.relative_to(self.template_root), self.old[path], self.new[path]

    def inspect(self, tree, done, call, fault):
        for path, old, new in self.each(tree):
            now = content(path)
            check(now in (old, new), f"{path.name} is neither old nor new")
            check(done.status != 0 or now == new, f"exit status 0, and {path.name} is not restored")
        self.old_key_is_there(tree)
        if tree.line(1) in tree.tab():
            check(tree.key(1).exists(), "a line without its key")
        ends_orderly(tree, done, call, fault)

    def old_key_is_there(self, tree):
        held = [content(path) for path in tree.key(2).parent.glob(f"{tree.key(2).name}*")]
        check(self.differing in held, "the key that differed is lost")

    def again(self, tree, unsynced):
        done = self.second(tree, unsynced)
        check(done.status == 0, f"the second run: {done}")
        for path, _, new in self.each(tree):
            check(content(path) == new, f"{path.name} is not restored")
        self.old_key_is_there(tree)
        versions = list(tree.key(2).parent.glob(f"{tree.key(2).name}.*"))
        check(len(versions) == 1, f"old versions: {versions}")
        check(stat.S_IMODE(tree.key(1).stat().st_mode) == 0o400, "the key is not private")
        check(not tree.leftovers(), f"left over: {tree.leftovers()}")


def read_only_targets(scratch):
    """R: a read-only directory for the bundle, a read-only /etc: told, and nothing changes"""
    key, cert = certificate(scratch)
    tree = filled(scratch)
    with read_only(tree.root / "var"):
        done = tree.qs("keybackup", "--to", cert, BUNDLE)
    check(done.status == 1 and "Read-only" in done.err, f"{done}")
    must(*tree.command("keybackup", "--to", cert, BUNDLE))
    tree.key(1).unlink()
    before = tree.fingerprint()
    with read_only(tree.root / "etc"):
        done = tree.qs("keyrestore", "--key-file", key, BUNDLE)
        check(done.status == 1 and "Read-only" in done.err, f"{done}")
        must(*tree.command("keyrestore", "--dry-run", "--key-file", key, BUNDLE))
        must(*tree.command("keybackup", "--force", "--to", cert, BUNDLE))
    check(tree.fingerprint("var/keys.cms") == {k: v for k, v in before.items() if k != "var/keys.cms"}, "changed")


def full_disk(scratch):
    """S: a file system that is really full: no bundle and no stub; then there is room"""
    key, cert = certificate(scratch)
    tree = filled(scratch)
    with mounted("tmpfs", tree.root / "var", "size=8k,mode=755"):
        done = tree.qs("keybackup", "--to", cert, BUNDLE)
        check(done.status == 1 and "No space left" in done.err, f"{done}")
        check(not list((tree.root / "var").iterdir()), "a stub is left")
        must("mount", "-o", "remount,size=1m", tree.root / "var")
        must(*tree.command("keybackup", "--to", cert, BUNDLE))
        check("manifest.json" in unpacked(bundle_of(tree), key, scratch), "the bundle is not whole")


def two_at_once(scratch):
    """2: two restores and two backups at once: each ends well or is told, nothing is half"""
    key, cert = certificate(scratch)
    tree = filled(scratch)
    must(*tree.command("keybackup", "--to", cert, BUNDLE))
    wanted = members_of(tree)
    for _ in range(10):
        shutil.rmtree(tree.root / "etc")
        (tree.root / "etc").mkdir()
        tree.crypttab.write_text(FOREIGN_TAB)
        words = [("keyrestore", "--key-file", key, BUNDLE)] * 3
        running = [
            subprocess.Popen(
                [str(w) for w in tree.command("--quiet", *each)], env=ENVIRONMENT, stderr=subprocess.PIPE
            )
            for each in words
        ]
        for process in running:
            err = process.communicate()[1].decode()
            check(process.returncode in (0, 5), f"exit {process.returncode}: {err}")
        must(*tree.command("keyrestore", "--key-file", key, BUNDLE))
        check(members_of(tree) == wanted, "something is missing or half")
        check(not tree.leftovers(), f"left over: {tree.leftovers()}")


# ---- where no byte of a key may be ----


def pieces(keys):
    """Parts of keys, short enough to be found in any cut of them."""
    return [key[at : at + 8] for key in keys for at in range(0, len(key) - 8, 8)]


def holds_secret(data, parts):
    return any(part in data for part in parts)


def paused(command, call, where, **options):
    """Start COMMAND under strace, which holds it for two seconds before its first CALL."""
    return subprocess.Popen(
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        + ["-e", f"inject={call}:delay_enter=2s:when=1", *map(str, command)],
        env=dict(ENVIRONMENT, TMPDIR=str(where)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=where,
        **options,
    )


def look_into(pid, parts):
    """Reads what others could read of a process. Returns its VmLck in kB."""
    for name in ("cmdline", "environ"):
        with open(f"/proc/{pid}/{name}", "rb") as file:
            check(not holds_secret(file.read(), parts), f"a secret in {name}")
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        limit = [line.split() for line in file if line.startswith("Max core file size")][0]
    check(limit[4] == "0", f"core files of {limit[4]} bytes are allowed")
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int([line.split()[1] for line in file if line.startswith("VmLck")][0])


def secrets_stay_in_memory(scratch):
    """no byte of a key or passphrase in arguments, environment, output, temporary files or cores"""
    where = scratch / "where"
    where.mkdir()
    phrase = secrets.token_hex(16)
    private(scratch / "pass", phrase.encode())
    tree = filled(scratch)
    keys = [tree.key(number).read_bytes() for number in (1, 2)]
    parts = pieces([*keys, phrase.encode()])
    locked = []
    unlimited = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)}
    backup = ("keybackup", "--force", "--passphrase-file", scratch / "pass", BUNDLE)
    restore = ("keyrestore", "--passphrase-file", scratch / "pass", BUNDLE)
    for words in (backup, restore):
        if words is restore:
            tree.key(1).unlink()
        # The rename that puts a temporary in its place: all of it has been written by then.
        call = "renameat" if words is backup else "renameat2"
        tracer = paused(tree.command(*words), call, where, **unlimited)
        deadline = time.monotonic() + 30
        while not tree.leftovers() and time.monotonic() < deadline:
            time.sleep(0.01)
        temporary = tree.leftovers()
        check(len(temporary) == 1, f"paused with {temporary}")
        locked.append(look_into(children_of(tracer.pid)[0], parts))
        if words is backup:
            check(not holds_secret((tree.root / temporary[0]).read_bytes(), parts), "a secret in a temporary")
        out, err = tracer.communicate()
        check(tracer.returncode == 0, f"{words[0]}: {err.decode()}")
        check(not holds_secret(out + err, parts), f"a secret in what {words[0]} says")
    check(not holds_secret(bundle_of(tree).read_bytes(), parts), "a secret in the bundle")
    crash = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e"]
    crash += ["inject=fsync:signal=SIGSEGV:when=1", *tree.command(*backup)]
    done = subprocess.run([str(w) for w in crash], cwd=where, env=ENVIRONMENT, check=False, **unlimited)
    check(done.returncode == -11, f"not killed: {done.returncode}")
    check(not list(where.iterdir()), f"left in the working directory: {list(where.iterdir())}")
    if can_lock():
        check(min(locked) >= 4096, f"locked memory: {locked} kB")  # all, and not the secrets alone
    return f"{min(locked)} kB locked"


def can_lock():
    with open("/proc/self/status", encoding="ascii") as file:
        effective = [line.split()[1] for line in file if line.startswith("CapEff")][0]
    return int(effective, 16) >> 14 & 1  # CAP_IPC_LOCK


private_mounts()
main(
    swept(Backup, KILL, "keybackup, a whole bundle or none"),
    swept(Backup, READ_ERROR, "keybackup, a whole bundle or none"),
    swept(BackupAgain, KILL, "keybackup --force, the old bundle or the new one"),
    swept(BackupAgain, FULL, "keybackup --force, the old bundle or the new one"),
    swept(BackupAgain, WRITE_ERROR, "keybackup --force, the old bundle or the new one"),
    swept(Restore, KILL, "keyrestore, each file old or new and the second run finishes"),
    swept(Restore, FULL, "keyrestore, each file old or new and the second run finishes"),
    swept(Restore, STAYS_FULL, "keyrestore on a disk that stays full, each file old or new"),
    swept(Restore, WRITE_ERROR, "keyrestore, each file old or new and the second run finishes"),
    swept(Restore, READ_ERROR, "keyrestore, each file old or new and the second run finishes"),
    read_only_targets,
    full_disk,
    two_at_once,
    secrets_stay_in_memory,
)
