"""What all fault tests share: scratch trees, stock tools as judges, TAP.

A tree is a directory for --root: image files below img/, by-id links to them,
/etc with a crypttab of somebody else's. Its judges are stock cryptsetup, cmp and
the like, never qs-util; they look at copies, because reading writes (cryptsetup
repairs what it loads)."""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
QS_UTIL = os.environ.get("QS_UTIL") or str(REPOSITORY / "build" / "qs-util")

MIB = 1 << 20
DATA_AT = 16 * MIB  # where our format puts the data (lib/luks/make.h)
DATA_SIZE = MIB
HEADER_SIZE = 2 * (128 << 10) + 4 * MIB  # both metadata areas and the keyslots
SECOND_AT = 128 << 10
KEY_SIZE = MIB
# Looks like ciphertext: nothing in it is a signature.
PATTERN = random.Random(1).randbytes(DATA_SIZE)

# What an administrator wrote: comments, blanks and tabs that must stay as they are.
FOREIGN_TAB = (
    "# <target name> <source device> <key file> <options>\n"
    "\tcryptswap  /dev/disk/by-id/ata-OTHER-part5\t/dev/urandom   swap,cipher=aes-xts-plain64\n"
    "\n"
    "# the end, with two blanks  \n"
)

# The leak checker cannot work under ptrace; everything else of the sanitizers stays on.
ENVIRONMENT = dict(
    os.environ,
    LC_ALL="C",
    PATH=os.environ["PATH"] + ":/usr/sbin:/sbin",
    ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0",
)

JOBS = int(os.environ.get("QS_FAULT_JOBS") or len(os.sched_getaffinity(0)))

# No command on such small images may take this long; one that does hangs.
HANG_S = 120


class Broken(Exception):
    """A promise that does not hold; the text says which."""


def check(condition, sentence):
    if not condition:
        raise Broken(sentence)


@dataclasses.dataclass
class Run:
    """A finished command. status is negative when a signal ended it."""

    status: int
    out: str = ""
    err: str = ""

    def __str__(self):
        return f"exit {self.status}: {(self.err or self.out).strip()}"


def run(*command, **options):
    """Run a command without a terminal, and without input unless it is given."""
    if "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        env=ENVIRONMENT,
        timeout=HANG_S,
        check=False,
        **options,
    )
    return Run(
        done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    )


def must(*command, **options):
    """Run something of the bench itself that has to succeed."""
    done = run(*command, **options)
    if done.status != 0:
        raise RuntimeError(f"{command}: {done}")
    return done


# ---- scratch ----


def scratch_parent():
    """Memory, where there is enough of it: a sweep syncs tens of thousands of times."""
    named = os.environ.get("QS_FAULT_DIR")
    if named:
        return named
    with contextlib.suppress(OSError):
        room = os.statvfs("/dev/shm")
        if room.f_bavail * room.f_frsize > 1 << 30 and os.access("/dev/shm", os.W_OK):
            return "/dev/shm"
    return None


@contextlib.contextmanager
def scratch():
    with tempfile.TemporaryDirectory(prefix="qs-fault-", dir=scratch_parent()) as directory:
        yield Path(directory)


class Tree:
    """A --root directory. Devices are d1, d2 ...; their by-id links scsi-30001, ..."""

    def __init__(self, root):
        self.root = Path(root)
        self.conf = self.root / "etc/cryptconf"
        self.crypttab = self.root / "etc/crypttab"
        self.pending = self.conf / "pending"
        self.options = "luks"

    @classmethod
    def make(cls, root, count=1):
        tree = cls(root)
        for directory in ("img", "dev/disk/by-id", "run/qs-util", "var", "etc/cryptconf"):
            (tree.root / directory).mkdir(parents=True)
        for directory in ("keys", "headers", "pending"):
            (tree.conf / directory).mkdir(mode=0o700)
        tree.crypttab.write_text(FOREIGN_TAB, encoding="ascii")
        for number in range(1, count + 1):
            with open(tree.image(number), "wb") as image:
                image.truncate(DATA_AT)
                image.seek(DATA_AT)
                image.write(PATTERN)
            (tree.root / tree.link(number)[1:]).symlink_to(f"../../../img/d{number}")
        return tree

    def copy(self, root):
        must("cp", "-a", "--reflink=auto", "--sparse=always", self.root, root)
        return type(self)(root)

    def image(self, number=1):
        return self.root / f"img/d{number}"

    def link(self, number=1):
        return f"/dev/disk/by-id/{self.base(number)}"

    def base(self, number=1):
        return f"scsi-3{number:04d}"

    def name(self, number=1):
        return f"enc-{self.base(number)}"

    def key(self, number=1):
        return self.conf / f"keys/{self.name(number)}.key"

    def backup(self, number=1):
        return self.conf / f"headers/{self.name(number)}.header"

    def line(self, number=1):
        """The documented crypttab line."""
        name = self.name(number)
        return f"{name}  {self.link(number)}  /etc/cryptconf/keys/{name}.key  {self.options}\n"

    def command(self, *words):
        return [QS_UTIL, f"--root={self.root}", *map(str, words)]

    def qs(self, *words, **options):
        return run(*self.command(*words), **options)

    def tab(self):
        return self.crypttab.read_text(encoding="utf-8") if self.crypttab.exists() else None

    def leftovers(self):
        """Temporaries that a later run would have to clean up."""
        found = [path for path in self.root.rglob("*") if ".qs-tmp" in path.name]
        return [str(path.relative_to(self.root)) for path in found]

    def journals(self):
        return sorted(path.name for path in self.pending.iterdir()) if self.pending.exists() else []

    def fingerprint(self, *skip):
        """Every file below the root with its mode and content, except the locks in /run."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            relative = str(path.relative_to(self.root))
            if relative.startswith("run/") or relative in skip or relative.startswith(tuple(skip or ("\0",))):
                continue
            status = path.lstat()
            content = os.readlink(path) if path.is_symlink() else ""
            if stat.S_ISREG(status.st_mode):
                content = digest(path)
            found[relative] = (stat.filemode(status.st_mode), content)
        return found


def digest(path, start=0, size=None):
    with open(path, "rb") as file:
        file.seek(start)
        return hashlib.sha256(file.read() if size is None else file.read(size)).hexdigest()


def content(path):
    return path.read_bytes() if path.exists() else None


def read_part(path, start, size):
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(size)


def write_at(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@contextlib.contextmanager
def flocked(paths):
    """Hold the lock that a disk's formatter waits for, as udev does while it probes."""
    with contextlib.ExitStack() as stack:
        locks = []
        for path in paths:
            file = stack.enter_context(open(path, "rb"))
            fcntl.flock(file, fcntl.LOCK_EX)
            locks.append(file)
        yield
        for file in locks:
            # Explicitly: a process that another thread starts just now has copies of the descriptors.
            fcntl.flock(file, fcntl.LOCK_UN)


# ---- judges: stock tools, on copies ----


@contextlib.contextmanager
def copied(path):
    """A throw-away copy beside the original; a header backup becomes a device again."""
    copy = Path(f"{path}.judged")
    must("cp", "--reflink=auto", "--sparse=always", path, copy)
    os.chmod(copy, 0o600)
    if copy.stat().st_size < DATA_AT + DATA_SIZE:
        os.truncate(copy, DATA_AT + DATA_SIZE)
    try:
        yield copy
    finally:
        copy.unlink()


def has_trace(path):
    """A magic of either header copy, cheaper than asking cryptsetup."""
    first, second = read_part(path, 0, 6), read_part(path, SECOND_AT, 6)
    return first == b"LUKS\xba\xbe" or second == b"SKUL\xba\xbe"


def is_luks(path):
    if not has_trace(path):
        return False
    with copied(path) as copy:
        return run("cryptsetup", "isLuks", copy).status == 0


def opens(path, key):
    """Does stock cryptsetup open the device (or header backup) with this key file?"""
    if not has_trace(path) or not Path(key).exists():
        return False
    with copied(path) as copy:
        done = run("cryptsetup", "open", "--test-passphrase", "--key-file", key, copy)
    return done.status == 0


def stock_format(image, key, *options):
    """As stock cryptsetup does it, with the cheapest key derivation there is."""
    must(
        *("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2"),
        *("--pbkdf-force-iterations", "1000", "--key-file", key, *options, image),
    )


# ---- promises (one function each, raising Broken) ----


def data_is_untouched(tree, *numbers):
    for number in numbers or (1,):
        check(
            read_part(tree.image(number), DATA_AT, DATA_SIZE) == PATTERN,
            f"data of d{number} behind the header area changed",
        )


def key_is_whole(tree, number=1):
    """Absent, or complete and private."""
    key = tree.key(number)
    if not key.exists():
        return
    status = key.lstat()
    check(stat.S_ISREG(status.st_mode), f"{key.name} is no regular file")
    check(status.st_size == KEY_SIZE, f"{key.name} has {status.st_size} bytes")
    check(status.st_mode & 0o7777 == 0o400, f"{key.name} has mode {status.st_mode & 0o7777:04o}")


def header_has_its_key(tree, number=1):
    """Whatever stock cryptsetup takes for LUKS opens with the key file beside it."""
    if is_luks(tree.image(number)):
        check(opens(tree.image(number), tree.key(number)), f"d{number} is LUKS, but its key does not open it")


def backup_is_whole(tree, number=1):
    """Absent, or complete and good for the key."""
    backup = tree.backup(number)
    if not backup.exists():
        return
    size = backup.stat().st_size
    check(size == HEADER_SIZE, f"{backup.name} has {size} bytes")
    check(opens(backup, tree.key(number)), f"the header backup of d{number} does not open with its key")


def table_is_old_or_new(tree, old, *numbers):
    """Foreign text first and unchanged, behind it any of our lines, each whole and once."""
    now = tree.tab()
    check(now is not None and now.startswith(old), "the crypttab's foreign lines changed")
    added = now[len(old) :].splitlines(keepends=True)
    allowed = {tree.line(number) for number in numbers}
    check(
        set(added) <= allowed and len(added) == len(set(added)),
        f"the crypttab holds {now[len(old):]!r}",
    )
    kept = tree.root / "etc/crypttab.qs-bak"
    check(not kept.exists() or kept.read_text().startswith(old), "crypttab.qs-bak lost foreign lines")


def is_formatted(tree, old_tab, *numbers):
    """All that exit status 0 of cryptformat promises."""
    for number in numbers:
        check(tree.key(number).exists(), f"there is no key of d{number}")
        key_is_whole(tree, number)
        check(opens(tree.image(number), tree.key(number)), f"stock cryptsetup does not open d{number}")
        check(tree.backup(number).exists(), f"there is no header backup of d{number}")
        check(
            tree.backup(number).read_bytes() == read_part(tree.image(number), 0, HEADER_SIZE),
            f"the header backup differs from the header of d{number}",
        )
        if old_tab is not None:
            check(tree.line(number) in tree.tab(), f"crypttab has no line for d{number}")
    if old_tab is not None:
        table_is_old_or_new(tree, old_tab, *numbers)
    nothing_is_left_over(tree)


def nothing_is_left_over(tree):
    check(not tree.leftovers(), f"left over: {tree.leftovers()}")
    check(not tree.journals(), f"still pending: {tree.journals()}")


def is_destroyed(tree, old_tab, saved, *numbers):
    """All that exit status 0 of cryptdestroy promises. SAVED: copies of the keys before it."""
    for number in numbers:
        check(not has_trace(tree.image(number)), f"d{number} still has a LUKS magic")
        check(not opens(tree.image(number), saved[number]), f"the saved key opens d{number}")
        head = read_part(tree.image(number), 0, HEADER_SIZE)
        check(head == bytes(HEADER_SIZE), f"header or keyslots of d{number} are not overwritten")
        check(not tree.key(number).exists(), f"the key of d{number} is still there")
        left = [path.name for path in (tree.conf / "headers").rglob(f"*{tree.name(number)}*")]
        check(not left, f"header backups of d{number} are still there: {left}")
    check(tree.tab() == old_tab, "crypttab is not what it was before the format")
    nothing_is_left_over(tree)


# ---- TAP ----


class Tap:
    """Collects tests and prints them as they end; finish() is the exit status."""

    def __init__(self):
        self.count = self.failed = 0

    def result(self, good, name, *diagnosis):
        self.count += 1
        self.failed += not good
        print(f"{'ok' if good else 'not ok'} {self.count} - {name}")
        for line in diagnosis:
            print("\n".join(f"# {part}" for part in str(line).splitlines()))
        sys.stdout.flush()

    def finish(self):
        print(f"1..{self.count}")
        return 1 if self.failed or not self.count else 0


def explain(error):
    if isinstance(error, Broken):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}, line {place.lineno})"


def main(*tests):
    """Run functions that take a scratch directory; a test's name is its docstring's first line.
    One that returns a text has it added to its name. Arguments select by function name."""
    tap = Tap()
    wanted = [test for test in tests if not sys.argv[1:] or test.__name__ in sys.argv[1:]]
    for test in wanted:
        name = test.__doc__.strip().splitlines()[0]
        with scratch() as directory:
            try:
                note = test(directory)
                tap.result(True, f"{name}: {note}" if note else name)
            except Exception as error:  # a broken test must not hide the others
                tap.result(False, name, explain(error))
    sys.exit(tap.finish())


def in_parallel(function, items, jobs=JOBS):
    """[(item, result or exception)] in the order of ITEMS."""

    def guarded(item):
        try:
            return item, function(item)
        except Exception as error:
            return item, error

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        return list(pool.map(guarded, items))


def remove(path):
    shutil.rmtree(path, ignore_errors=True)
