#!/usr/bin/python3 -B
"""A keystore at a key server, killed at every message to it: before the message is there, and when
it is done and the answer is not back. A second run ends it, and the server has no key more or less.

tests/kmip-double stands between: it kills the whole command at the message that is wanted. Points
follow each other in one tree, since what is left at the server is what counts."""

import json
import os
from contextlib import contextmanager

from faultbench import Tree, check, main, must
from keystoring import directory, files, state
from servers import WHERE, Kmip

STRIDE = 1 if os.environ.get("QS_FAULT_ALL") else 9


class Bench:
    """A tree with one device that asks the double."""

    def __init__(self, scratch):
        self.server = Kmip(scratch)
        self.tree = Tree.make(scratch / "tree")

    def start(self):
        self.server.start()
        (self.tree.conf / "qs-util.conf").write_text(self.server.setting(self.tree), encoding="ascii")
        return self

    def keys(self):
        return len(self.server.keys())

    def messages(self, *words):
        """The operations that a run of this command asks for."""
        before = len(self.server.messages())
        must(*self.tree.command(*words))
        return self.server.messages()[before:]

    def kill(self, words, number, where):
        self.server.kill(self.tree.command(*words), number, where)

    def points(self, operations):
        """(number, where): around whatever changes something, and every STRIDEth of the others."""
        found = [(n, where, self.server.changes(one)) for n, one in enumerate(operations, 1) for where in WHERE]
        return [(n, where) for index, (n, where, always) in enumerate(found) if always or index % STRIDE == 0]


@contextmanager
def bench(scratch):
    made = Bench(scratch)
    try:
        yield made.start()
    finally:
        made.server.stop()


ENABLE = ("--yes", "keystore", "enable", "--provider")
DISABLE = ("--yes", "keystore", "disable")
ROTATE = ("keystore", "rotate", "--force")


def enable_and_disable(scratch, provider):
    enable = (*ENABLE, provider)
    with bench(scratch) as b:
        asked = b.messages(*enable), b.messages(*DISABLE)
        check(b.keys() == 0, "a key is left")
        for number, where in b.points(asked[0]):
            b.kill(enable, number, where)
            done = b.tree.qs(*enable)
            check(done.status == 0 or state(b.tree) == "enabled", f"{number} {where}: the second run: {done}")
            check(b.keys() == 1, f"{number} {where}: the server has {b.keys()} keys")
            must(*b.tree.command(*DISABLE))
            check(b.keys() == 0, f"{number} {where}: a key is left")
        for number, where in b.points(asked[1]):
            must(*b.tree.command(*enable))
            b.kill(DISABLE, number, where)
            must(*b.tree.command(*DISABLE))
            check(b.keys() == 0 and not files(b.tree), f"{number} {where}: {b.keys()} keys, {files(b.tree)}")
        return f"{len(b.points(asked[0]))} and {len(b.points(asked[1]))} points"


def rotate(scratch, provider):
    enable = (*ENABLE, provider)
    with bench(scratch) as b:
        link = b.tree.link()
        must(*b.tree.command("cryptformat", "--no-open", link))
        must(*b.tree.command(*enable))
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


def enabled(scratch):
    """enabling and disabling at a key server, killed at every message"""
    return enable_and_disable(scratch, "kmip")


def enabled_there(scratch):
    """the same with a key that stays there"""
    return enable_and_disable(scratch, "kmip-wrap")


def rotated(scratch):
    """a rotation at a key server, killed at every message: the device opens, and nothing is left"""
    return rotate(scratch, "kmip")


def rotated_there(scratch):
    """the same with keys that stay there"""
    return rotate(scratch, "kmip-wrap")


main(enabled, enabled_there, rotated, rotated_there)
