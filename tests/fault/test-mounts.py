#!/usr/bin/python3 -B
"""Full, read-only and missing file systems, for real, in a mount namespace of the test's own:
columns S, R and M. After each the mended system finishes with the same command."""

import contextlib

from faultbench import (
    FOREIGN_TAB,
    Tree,
    check,
    content,
    data_is_untouched,
    flocked,
    has_trace,
    header_has_its_key,
    is_destroyed,
    is_formatted,
    key_is_whole,
    main,
    must,
    opens,
)
from mounts import mounted, private_mounts, read_only
from traced import finish, start, waiting_workers


def form(tree, *more):
    return tree.qs("cryptformat", "--no-open", tree.link(), *more)


def formatted(scratch, name="t", count=1):
    tree = Tree.make(scratch / name, count)
    must(*tree.command("cryptformat", "--no-open", *map(tree.link, range(1, count + 1))))
    return tree


def finishes(tree):
    must(*tree.command("cryptformat", "--no-open", tree.link()))
    is_formatted(tree, FOREIGN_TAB, 1)
    data_is_untouched(tree)


def full(scratch):
    """S: /etc/cryptconf on a file system of every size up to enough: refused, no stub, then finished"""
    refusals = 0
    sizes = [*range(4, 64, 12), *range(64, 1200, 128), *range(1200, 6200, 512), 8192]
    for size in sizes:
        tree = Tree.make(scratch / f"{size}k")
        tree.options = "luks,nofail"  # the keys are on a mount of their own
        with mounted("tmpfs", tree.conf, f"size={size}k,mode=755"):
            for directory in ("keys", "headers", "pending"):
                (tree.conf / directory).mkdir(mode=0o700)
            done = form(tree)
            if done.status != 0:
                refusals += 1
                check(done.status == 1 and "No space left" in done.err, f"{size} KiB: {done}")
                check(not tree.leftovers(), f"{size} KiB: left over: {tree.leftovers()}")
                check(tree.tab() == FOREIGN_TAB, f"{size} KiB: crypttab changed")
                check(tree.key().exists() or not has_trace(tree.image()), "a header without a key")
                check(tree.key().exists() or not tree.journals(), "a journal though nothing was done")
                key_is_whole(tree)
                header_has_its_key(tree)
                check(not tree.backup().exists(), f"{size} KiB: a stub of a header backup")
            key = content(tree.key())
            must("mount", "-o", "remount,size=64m", tree.conf)
            if done.status != 0:
                finishes(tree)
            check(key in (None, content(tree.key())), f"{size} KiB: another key")
            is_formatted(tree, FOREIGN_TAB, 1)
    check(refusals > 10 and refusals < len(sizes), f"{refusals} of {len(sizes)} sizes were too small")
    return f"{len(sizes)} sizes, {refusals} too small"


def full_etc(scratch):
    """S: no room for a new crypttab: the old one stays whole, the rest is done, then finished"""
    tree = Tree.make(scratch / "t")
    tree.options = "luks,nofail"  # the keys are on a mount of their own
    must("mv", tree.conf, scratch / "conf")
    with mounted("tmpfs", tree.root / "etc", "size=64k,mode=755"):
        tree.conf.mkdir()
        must("mount", "--bind", scratch / "conf", tree.conf)
        tree.crypttab.write_text(FOREIGN_TAB)
        with contextlib.suppress(OSError):
            with open(tree.root / "etc/filler", "wb", buffering=0) as filler:
                while filler.write(bytes(4096)):
                    pass
        done = form(tree)
        check(done.status == 1 and "No space left" in done.err, f"{done}")
        check(tree.tab() == FOREIGN_TAB, "crypttab changed")
        check(not tree.leftovers(), f"left over: {tree.leftovers()}")
        check(opens(tree.image(), tree.key()), "the device does not open")
        (tree.root / "etc/filler").unlink()
        finishes(tree)
        must("umount", "--lazy", tree.conf)


def read_only_etc(scratch):
    """R: /etc read-only: cryptformat and cryptdestroy change nothing at all"""
    tree = Tree.make(scratch / "t")
    before = tree.fingerprint()
    with read_only(tree.root / "etc"):
        done = form(tree)
        check(done.status == 1 and "Read-only" in done.err, f"{done}")
        check(tree.fingerprint() == before, "something changed")
    finishes(tree)
    before = tree.fingerprint()
    with read_only(tree.root / "etc"):
        done = tree.qs("cryptdestroy", "--yes", tree.link())
        check(done.status == 1 and "Read-only" in done.err, f"{done}")
        check(tree.fingerprint() == before, "something changed")
        check(opens(tree.image(), tree.key()), "the device opens no more")
        for words in (("cryptopen", "--test", tree.link()), ("cryptopenall", "--test"), ("cryptstatus",)):
            check(tree.qs(*words).status == 0, f"{words} needs to write")


def read_only_parts(scratch):
    """R: keys, headers or crypttab alone read-only: what was done is told, then finished"""
    for part in ("keys", "headers", "pending", "../crypttab"):
        tree = Tree.make(scratch / part.replace("../", ""))
        with read_only((tree.conf / part).resolve()):
            done = form(tree)
            # Nothing can be renamed to a file that is a mount point: "busy".
            check(done.status == (5 if "crypttab" in part else 1), f"{part}: {done}")
            check(tree.tab() == FOREIGN_TAB, f"{part}: crypttab changed")
            header_has_its_key(tree)
            if part in ("keys", "pending"):
                check(not has_trace(tree.image()), f"{part}: formatted without a durable key")
                check(not tree.journals(), f"{part}: a journal though nothing was done")
            else:
                check(opens(tree.image(), tree.key()), f"{part}: the device does not open")
                check("run the same command again" in done.err, f"{part}: does not say how to go on: {done}")
        finishes(tree)


def read_only_parts_at_destroy(scratch):
    """R: keys, headers or crypttab read-only at cryptdestroy: never done, told, then finished"""
    for part in ("keys", "headers", "../crypttab"):
        tree = formatted(scratch, part.replace("../", ""))
        saved = scratch / f"saved-{part.replace('../', '')}"
        saved.write_bytes(tree.key().read_bytes())
        check(opens(tree.image(), saved), "the saved key is of no use")
        with read_only((tree.conf / part).resolve()):
            done = tree.qs("cryptdestroy", "--yes", tree.link())
            check(done.status == (5 if "crypttab" in part else 1), f"{part}: {done}")
            check("run the same command again" in done.err, f"{part}: does not say how to go on: {done}")
            check(tree.journals(), f"{part}: nothing says that the destroy is unfinished")
        must(*tree.command("cryptdestroy", "--yes", tree.link()))
        is_destroyed(tree, FOREIGN_TAB, {1: saved}, 1)


def read_only_disk(scratch):
    """R: a read-only disk: refused before there is a key; cryptopen --test works"""
    tree = Tree.make(scratch / "t")
    before = tree.fingerprint()
    with read_only(tree.root / "img"):
        done = form(tree)
        check(done.status == 4 and "read-only" in done.err, f"{done}")
        check(tree.fingerprint() == before, "something changed")
    finishes(tree)
    before = tree.fingerprint()
    with read_only(tree.root / "img"):
        done = tree.qs("cryptdestroy", "--yes", tree.link())
        check(done.status == 4, f"{done}")
        check(tree.fingerprint() == before, "something changed")
        check(tree.qs("cryptopen", "--test", tree.link()).status == 0, "--test needs to write")


def missing_key_mount(scratch):
    """M: the keys directory's mount is missing: no key is made below it, nothing changes"""
    tree = Tree.make(scratch / "t")
    usb = tree.root / "etc/usb"
    usb.mkdir()
    (tree.conf / "qs-util.conf").write_text('keys_dir = "/etc/usb/keys";\n')
    (tree.root / "etc/fstab").write_text("/dev/disk/by-label/KEYS /etc/usb ext4 nofail 0 2\n")
    before = tree.fingerprint()
    done = form(tree)
    check(done.status == 2 and "/etc/usb" in done.err, f"{done}")
    check("not mounted" in done.err, f"{done}")
    check(tree.fingerprint() == before, "something changed")
    (usb / "keys").mkdir(mode=0o700)
    done = form(tree)
    check(done.status == 2 and "not mounted" in done.err, f"an empty directory was taken: {done}")
    (usb / "keys").rmdir()
    with mounted("tmpfs", usb, "size=4m"):
        done = form(tree)
        check(done.status == 2 and "does not exist" in done.err, f"{done}")
        (usb / "keys").mkdir(mode=0o700)
        check(form(tree).status == 0, "with the mount")
        key = usb / f"keys/{tree.name()}.key"
        check(opens(tree.image(), key), "the device does not open")
        saved = scratch / "saved"
        saved.write_bytes(key.read_bytes())
    done = tree.qs("cryptopen", "--test", tree.link())
    check(done.status == 2, f"without the stick: {done}")
    check(opens(tree.image(), saved), "the device opens no more")


def absent_device(scratch):
    """M: a device that is absent: exit 4 and nothing changes; destroy erases its key and says so"""
    tree = Tree.make(scratch / "t")
    tree.image().rename(scratch / "pulled-out")
    before = tree.fingerprint()
    for words in (("cryptformat", "--no-open"), ("cryptopen", "--test"), ("cryptdestroy", "--yes")):
        done = tree.qs(*words, tree.link())
        check(done.status == 4 and tree.link() in done.err, f"{words[0]}: {done}")
    check(tree.fingerprint() == before, "something changed")
    tree = formatted(scratch, "u")
    pulled = scratch / "pulled-out-u"
    tree.image().rename(pulled)
    saved = content(tree.key())
    done = tree.qs("cryptopenall", "--test")
    check(done.status in (0, 4) and "absent" in done.out + done.err, f"cryptopenall: {done}")
    done = tree.qs("cryptdestroy", "--yes", tree.link())
    check(done.status == 0 and "absent" in done.out + done.err, f"cryptdestroy: {done}")
    check(not tree.key().exists() and not tree.backup().exists(), "key or backup are still there")
    check(tree.tab() == FOREIGN_TAB, "the line is still there")
    check(saved and has_trace(pulled), "the header of an absent disk was touched")


def device_vanishes(scratch):
    """M: the disk goes while its worker waits for the lock: exit 4, no key, nothing left over"""
    tree = Tree.make(scratch / "t")
    before = tree.fingerprint("img")
    with flocked([tree.image()]):
        process = start(tree.command("cryptformat", "--no-open", tree.link()))
        check(waiting_workers(process, [tree.image()]), "no worker came")
        tree.image().rename(scratch / "pulled-out")
    done = finish(process)
    check(done.status in (1, 4), f"{done}")
    check(tree.fingerprint("img") == before, "something changed")
    check(not has_trace(scratch / "pulled-out"), "the disk was written")
    (scratch / "pulled-out").rename(tree.image())
    finishes(tree)


def missing_files(scratch):
    """M: no crypttab, no directories, no backup, no key, no /run: made or told, never guessed"""
    tree = Tree.make(scratch / "t")
    tree.crypttab.unlink()
    must("rm", "-r", tree.conf, tree.root / "run")
    (tree.root / "run").mkdir()
    check(form(tree).status == 0, "from nothing")
    is_formatted(tree, None, 1)
    check(tree.tab() == tree.line(), "crypttab was not made")
    check(tree.crypttab.stat().st_mode & 0o777 == 0o644, "crypttab has another mode")
    check(tree.conf.joinpath("keys").stat().st_mode & 0o777 == 0o700, "keys/ has another mode")
    tree.backup().unlink()
    before = tree.fingerprint()
    check(tree.qs("cryptopen", "--test", tree.link()).status == 0, "without the backup")
    check(tree.fingerprint() == before, "something changed")
    key = tree.key().rename(scratch / "key")
    before = tree.fingerprint()
    for words in (("cryptopen", "--test", tree.link()), ("cryptopenall", "--test")):
        done = tree.qs(*words)
        check(done.status == 2 and tree.name() in done.err, f"{words[0]} without the key: {done}")
    check(form(tree).status in (5, 6), "a device whose key is missing was formatted")
    check(tree.fingerprint() == before, "something changed")
    check(opens(tree.image(), key), "the device opens no more")


def restored_elsewhere(scratch):
    """keyrestore where the keys directory is a mount of its own: the restored line holds no boot"""
    tree = formatted(scratch)
    passphrase = scratch / "passphrase"
    passphrase.write_text("correct horse\n")
    passphrase.chmod(0o400)
    bundle = ("--passphrase-file", passphrase, scratch / "bundle")
    must(*tree.command("keybackup", *bundle))
    tree.key().unlink()
    tree.crypttab.write_text(FOREIGN_TAB)
    with mounted("tmpfs", tree.conf / "keys", "size=4m,mode=700"):
        must(*tree.command("keyrestore", *bundle))
        tree.options = "luks,nofail"
        is_formatted(tree, FOREIGN_TAB, 1)


private_mounts()
main(
    full,
    full_etc,
    read_only_etc,
    read_only_parts,
    read_only_parts_at_destroy,
    read_only_disk,
    missing_key_mount,
    absent_device,
    device_vanishes,
    missing_files,
    restored_elsewhere,
)
