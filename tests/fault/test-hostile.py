#!/usr/bin/python3 -B
"""Hostile or broken things where key, crypttab, lock, journal and header backup belong: a clear
refusal that names the thing, nothing followed, nothing overwritten, no hang."""

import os
import random

from faultbench import (
    FOREIGN_TAB,
    Tree,
    check,
    digest,
    is_formatted,
    main,
    must,
    opens,
)

VICTIM = "root:x:0:0:root:/root:/bin/bash\n"


def fresh(scratch, name="t", count=1):
    tree = Tree.make(scratch / name, count)
    tree.victim = tree.root / "var/passwd"
    tree.victim.write_text(VICTIM)
    tree.victim.chmod(0o644)
    return tree


def form(tree, number=1):
    return tree.qs("cryptformat", "--no-open", tree.link(number))


def formatted(scratch, name="t"):
    tree = fresh(scratch, name)
    must(*tree.command("cryptformat", "--no-open", tree.link()))
    return tree


def refused(tree, done, statuses, *words):
    """Not done, with the words in the sentence, and neither disk nor table nor victim touched."""
    check(done.status in statuses, f"{done}")
    for word in words:
        check(str(word) in done.err, f"does not say {word!r}: {done}")
    check(tree.victim.read_text() == VICTIM, "the victim was written")
    check(tree.victim.stat().st_mode & 0o777 == 0o644, "the victim's mode was changed")


def hostile_keys():
    """(name, how to put it at PATH, word of the sentence)"""
    return [
        ("symlink", lambda tree, path: path.symlink_to(tree.victim)),
        ("dangling", lambda tree, path: path.symlink_to(tree.root / "var/nothing")),
        ("fifo", lambda tree, path: os.mkfifo(path)),
        ("directory", lambda tree, path: path.mkdir()),
        ("empty", lambda tree, path: path.touch(0o400)),
        ("public", lambda tree, path: (path.write_bytes(b"k" * 64), path.chmod(0o644))),
        ("foreign", lambda tree, path: (path.write_bytes(b"k" * 64), path.chmod(0o400))),
    ]


def key_in_the_way(scratch):
    """something at NAME.key: cryptformat refuses, keeps it and does not touch the disk"""
    for name, put in hostile_keys():
        tree = fresh(scratch, name)
        put(tree, tree.key())
        before, there = digest(tree.image()), tree.key().lstat().st_ino
        done = form(tree)
        refused(tree, done, (2, 5, 6), tree.name())
        check(digest(tree.image()) == before, f"{name}: the disk changed")
        check(tree.key().lstat().st_ino == there, f"{name}: it was replaced")
        check(tree.tab() == FOREIGN_TAB, f"{name}: crypttab changed")
        check(not tree.journals() and not tree.leftovers(), f"{name}: something is left over")
    return f"{len(hostile_keys())} cases"


def key_argument(scratch):
    """a key file argument that is hostile: refused with its name before anything is changed"""
    cases = [case for case in hostile_keys() if case[0] != "foreign"]
    for name, put in cases:
        tree = fresh(scratch, name)
        key = tree.root / "var/own.key"
        put(tree, key)
        before = tree.fingerprint()
        refused(tree, tree.qs("cryptformat", "--no-open", "--key-file", key, tree.link()), (2,), "own.key")
        check(tree.fingerprint() == before, f"{name}: something changed")
        tree = formatted(scratch, f"{name}-open")
        key = tree.root / "var/own.key"
        put(tree, key)
        before = tree.fingerprint()
        refused(tree, tree.qs("cryptopen", "--test", tree.link(), key), (2,), "own.key")
        check(tree.fingerprint() == before, f"{name}: something changed")
    return f"{len(cases)} cases"


def key_replaced(scratch):
    """the device's own key replaced by something hostile: --test refuses and says what it is"""
    for name, put in hostile_keys():
        tree = formatted(scratch, name)
        tree.key().unlink()
        put(tree, tree.key())
        before = tree.fingerprint()
        refused(tree, tree.qs("cryptopen", "--test", tree.link()), (2,), tree.name())
        done = tree.qs("cryptopenall", "--test")
        check(done.status == 2, f"{name}: cryptopenall: {done}")
        check(tree.fingerprint() == before, f"{name}: something changed")
    return f"{len(hostile_keys())} cases"


def temporaries_in_the_way(scratch):
    """symlinks and FIFOs at the names of temporaries: replaced, never followed"""
    def places(tree):
        return [
            tree.conf / f"keys/.{tree.name()}.key.qs-tmp",
            tree.conf / f"headers/.{tree.name()}.header.qs-tmp",
            tree.conf / f"pending/.{tree.name()}.json.qs-tmp",
            tree.root / "etc/.crypttab.qs-tmp",
            tree.root / "etc/.crypttab.qs-bak.qs-tmp",
        ]

    for index in range(5):
        for name, put in hostile_keys()[:3]:
            tree = fresh(scratch, f"{index}-{name}")
            put(tree, places(tree)[index])
            done = form(tree)
            check(done.status == 0, f"{done}")
            check(tree.victim.read_text() == VICTIM, "the victim was written")
            check(not (tree.root / "var/nothing").exists(), "a dangling link was followed")
            is_formatted(tree, FOREIGN_TAB, 1)
    return "15 cases"


def public_keys_directory(scratch):
    """a keys directory that others can write, a file or a link to nowhere in its place: refused"""
    tree = fresh(scratch, "public")
    (tree.conf / "keys").chmod(0o777)
    before = tree.fingerprint()
    refused(tree, form(tree), (2,), "/etc/cryptconf/keys", "chmod")
    check(tree.fingerprint() == before, "something changed")
    for name, put in (hostile_keys()[1], hostile_keys()[2], hostile_keys()[4]):
        tree = fresh(scratch, name)
        (tree.conf / "keys").rmdir()
        put(tree, tree.conf / "keys")
        before = tree.fingerprint()
        refused(tree, form(tree), (1, 2), "/etc/cryptconf/keys")
        check(tree.fingerprint() == before, f"{name}: something changed")


def hostile_crypttab(scratch):
    """a crypttab that cannot be edited safely: refused with the line's number, file untouched"""
    cases = {
        "nul": (b"good /dev/x none luks\nbad\0line\n", "line 2"),
        "our name for another disk": (b"# c\nenc-scsi-30001 /dev/sdz none luks\n", "line 2"),
        "our disk under another name": (
            b"data /dev/disk/by-id/scsi-30001 none luks\n",
            "/etc/crypttab",
        ),
    }
    for name, (text, word) in cases.items():
        tree = fresh(scratch, name)
        tree.crypttab.write_bytes(text)
        before = tree.fingerprint()
        refused(tree, form(tree), (1, 5), word)
        check(tree.fingerprint() == before, f"{name}: something changed")
    for name, put in (hostile_keys()[2], hostile_keys()[3]):
        tree = fresh(scratch, name)
        tree.crypttab.unlink()
        put(tree, tree.crypttab)
        before = tree.fingerprint()
        refused(tree, form(tree), (1,), "crypttab")
        check(tree.fingerprint() == before, f"{name}: something changed")
    return f"{len(cases) + 2} cases"


def linked_crypttab(scratch):
    """a crypttab that is a symlink stays one, and its target gets the line"""
    tree = fresh(scratch)
    target = tree.root / "var/crypttab"
    tree.crypttab.rename(target)
    tree.crypttab.symlink_to(target)
    check(form(tree).status == 0, "cryptformat")
    check(tree.crypttab.is_symlink(), "the link was replaced")
    is_formatted(tree, FOREIGN_TAB, 1)


def hostile_locks(scratch):
    """locks that are symlinks, directories or FIFOs: never followed or written through, no hang"""
    for name, put in hostile_keys()[:4]:
        tree = fresh(scratch, name)
        put(tree, tree.root / "run/qs-util/lock")
        done = form(tree)
        check(done.status in (0, 1), f"{name}: {done}")
        check(done.status == 0 or "run/qs-util/lock" in done.err, f"{name}: {done}")
        check(tree.victim.read_text() == VICTIM, f"{name}: the victim was written")
        check(not (tree.root / "var/nothing").exists(), f"{name}: a dangling link was followed")
        check(opens(tree.image(), tree.key()), f"{name}: the device does not open")
        (tree.root / "run/qs-util/lock").unlink() if name != "directory" else os.rmdir(
            tree.root / "run/qs-util/lock"
        )
        check(form(tree).status in (0, 5), f"{name}: a second run")
        is_formatted(tree, FOREIGN_TAB, 1)


def truncated_journal(scratch):
    """a journal truncated at every byte: gone on with or refused by name, never taken for another"""
    tree = fresh(scratch, "killed")
    (tree.conf / "headers").rmdir()
    (tree.conf / "headers").write_text("in the way")
    check(form(tree).status == 1, "the format was to fail at the backup")
    (tree.conf / "headers").unlink()
    (tree.conf / "headers").mkdir(mode=0o700)
    journal = tree.pending / f"{tree.name()}.json"
    whole, header = journal.read_bytes(), digest(tree.image())
    check(len(whole) > 100, "there is no journal")
    refusals = 0
    for size in range(len(whole)):
        journal.write_bytes(whole[:size])
        for words in (("cryptformat", "--no-open", tree.link()), ("cryptdestroy", "--yes", tree.link())):
            done = tree.qs(*words)
            if size == len(whole) - 1 and done.status == 0:
                break  # only the final newline is missing
            refusals += 1
            check(done.status == 1 and journal.name in done.err, f"cut at {size}: {words[0]}: {done}")
            check(digest(tree.image()) == header, f"cut at {size}: the disk changed")
            check(opens(tree.image(), tree.key()), f"cut at {size}: the device does not open")
    return f"{len(whole)} cuts, {refusals} refusals"


def mangled_journal(scratch):
    """a journal with random bytes exchanged: no crash, and the device still opens with its key"""
    tree = fresh(scratch, "killed")
    (tree.conf / "headers").rmdir()
    (tree.conf / "headers").write_text("in the way")
    check(form(tree).status == 1, "the format was to fail at the backup")
    journal = tree.pending / f"{tree.name()}.json"
    whole = journal.read_bytes()
    choose = random.Random(3)
    for _ in range(60):
        text = bytearray(whole)
        for _ in range(choose.choice((1, 1, 2, 8))):
            text[choose.randrange(len(text))] = choose.choice((0, 34, 44, 47, 58, 92, 123, 125, 200, 255))
        journal.write_bytes(text)
        done = form(tree)
        check(done.status in (1, 2, 5, 6), f"{bytes(text)!r}: {done}")
        check(opens(tree.image(), tree.key()), f"{bytes(text)!r}: the device does not open")


def hostile_backup(scratch):
    """garbage, FIFO or link as header backup: nobody hangs, nobody takes it for a good one"""
    for name, put in hostile_keys():
        tree = fresh(scratch, name)
        put(tree, tree.backup())
        before = tree.fingerprint()
        refused(tree, form(tree), (1, 2, 4, 5, 6), "header")
        check(tree.fingerprint() == before, f"{name}: something changed")
        tree = formatted(scratch, f"{name}-open")
        tree.backup().unlink()
        put(tree, tree.backup())
        before = tree.fingerprint()
        for words in (("cryptopen", "--test", tree.link()), ("cryptstatus", tree.link())):
            done = tree.qs(*words)
            check(done.status in (0, 1, 2, 4, 6, 7), f"{name}: {words[0]}: {done}")
        check(tree.fingerprint() == before, f"{name}: something changed")
        check(tree.victim.read_text() == VICTIM, f"{name}: the victim was written")
    return f"{len(hostile_keys())} cases"


def destroy_follows_nothing(scratch):
    """cryptdestroy with links where key and backup were: the links' targets keep their bytes"""
    for place in ("key", "backup"):
        tree = formatted(scratch, place)
        path = tree.key() if place == "key" else tree.backup()
        path.unlink()
        path.symlink_to(tree.victim)
        done = tree.qs("cryptdestroy", "--yes", tree.link())
        check(done.status in (0, 1), f"{done}")
        check(tree.victim.read_text() == VICTIM, "the victim was overwritten")
        check(done.status == 0 or path.name in done.err, f"does not name it: {done}")
        if done.status != 0:
            path.unlink()
            must(*tree.command("cryptdestroy", "--yes", tree.link()))


def name_tricks(scratch):
    """names with ../, blanks or control characters: never a path outside, never a raw character"""
    tree = formatted(scratch)
    before = tree.fingerprint()
    for word in (
        "enc-../../../var/passwd",
        "/dev/disk/by-id/../../../etc/passwd",
        "enc-scsi-30001/../x",
        "enc-\x1b[2J",
        "",
        "/dev/disk/by-id/" + "x" * 5000,
    ):
        for words in (("cryptdestroy", "--yes", word), ("cryptformat", "--no-open", word)):
            done = tree.qs(*words)
            check(done.status in (1, 4, 5, 6, 64), f"{word!r}: {done}")
            check("\x1b" not in done.err + done.out, f"{word!r}: a raw escape character")
            check(tree.fingerprint() == before, f"{word!r}: something changed")


main(
    key_in_the_way,
    key_argument,
    key_replaced,
    temporaries_in_the_way,
    public_keys_directory,
    hostile_crypttab,
    linked_crypttab,
    hostile_locks,
    truncated_journal,
    mangled_journal,
    hostile_backup,
    destroy_follows_nothing,
    name_tricks,
)
