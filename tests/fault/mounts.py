"""Mounts that nobody else sees: the test runs itself again in a mount namespace."""

import contextlib
import os
import sys

from faultbench import must


def private_mounts():
    """Call before anything else. Works for ordinary users too, as root of a user namespace."""
    if os.environ.get("QS_FAULT_NAMESPACE") == str(os.getppid()):
        return
    os.environ["QS_FAULT_NAMESPACE"] = str(os.getpid())
    options = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    command = ["unshare", *options, "--fork", sys.executable, "-B", *sys.argv]
    sys.stdout.flush()
    os.execvp(command[0], command)


@contextlib.contextmanager
def mounted(kind, target, options="defaults"):
    """A file system of its own, such as a tmpfs that is soon full."""
    must("mount", "-t", kind, "-o", options, kind, target)
    try:
        yield target
    finally:
        must("umount", "--lazy", target)


@contextlib.contextmanager
def read_only(path):
    """A file or directory that nobody can write for a while, root included."""
    must("mount", "--bind", path, path)
    try:
        must("mount", "-o", "remount,bind,ro", path)
        yield
    finally:
        must("umount", "--lazy", path)
