"""All scenarios of commands that change something, for tests that go through every command."""

import importlib.util
from pathlib import Path

import faultbench
import mounts
from destroying import Destroy
from enrolling import NewKey, Recovery, Wipe
from faultbench import Tree
from formatting import Format, FormatTwo
from opening import OpenUpdating
from retaining import Purge, Retire, Revive
from rotating import Move, RotateEight


def formatting(directory):
    return Format(Tree.make(directory / "template"))


def formatting_two(directory):
    return FormatTwo(Tree.make(directory / "template", 2))


def nothing(*_tests):
    """Instead of a file's own run."""


def of_test(file, name):
    """A scenario of a test file, whose tests are not run."""

    def make(directory):
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(file))
        module = importlib.util.module_from_spec(spec)
        kept = faultbench.main, mounts.private_mounts
        faultbench.main = mounts.private_mounts = nothing
        try:
            spec.loader.exec_module(module)
        finally:
            faultbench.main, mounts.private_mounts = kept
        return getattr(module, name)(directory)

    return make


# Each is a function of a directory of its own.
SCENARIOS = {
    "cryptformat": formatting,
    "cryptformat-two": formatting_two,
    "cryptopen": OpenUpdating,
    "cryptdestroy": Destroy,
    "cryptbackup": of_test("test-vault.py", "Backup"),
    "cryptrestore": of_test("test-vault.py", "Restore"),
    "cryptrestore-lost": of_test("test-vault.py", "Mend"),
    "cryptenroll": Recovery,
    "cryptenroll-wipe": Wipe,
    "cryptenroll-new-key": NewKey,
    "cryptswap": of_test("test-swap.py", "Swap"),
    "crypttabrepair": of_test("test-repair.py", "Repair"),
    "keybackup": of_test("test-bundle.py", "BackupAgain"),
    "keyrestore": of_test("test-bundle.py", "Restore"),
    "keystore-rotate": RotateEight,
    "keystore-rewrap": Move,
    "keystore-purge": Purge,
    "cryptdestroy-retained": Retire,
    "cryptrestore-retained": Revive,
}
