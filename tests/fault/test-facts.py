#!/usr/bin/python3 -B
"""What stock cryptsetup does on a bad day, and qs-util beside it in the same test: each of these
fails if qs-util behaves as stock does."""

import hashlib
import json
import os
import struct

from faultbench import (
    FOREIGN_TAB,
    MIB,
    Tree,
    check,
    copied,
    digest,
    in_parallel,
    is_formatted,
    main,
    must,
    opens,
    run,
    stock_format,
    write_at,
)
from mounts import mounted, private_mounts

EVERY_SYNC_FAILS = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync")
EVERY_SYNC_FAILS += ("-e", "inject=fsync,fdatasync:error=EIO")


def both(scratch):
    """Our device d1 and, formatted by stock cryptsetup with its default sizes, d2."""
    tree = Tree.make(scratch / "t", 2)
    must(*tree.command("cryptformat", "--no-open", tree.link(1)))
    tree.key(2).write_bytes(os.urandom(64))
    tree.key(2).chmod(0o400)
    stock_format(tree.image(2), tree.key(2))
    for number in (1, 2):
        check(opens(tree.image(number), tree.key(number)), "the test's own device does not open")
    return tree


def rewrite_header(image, edit):
    """Change the metadata of both copies and put their checksums right."""
    with open(image, "r+b") as file:
        size = struct.unpack(">Q", file.read(16)[8:])[0]
        for at in (0, size):
            file.seek(at)
            header = bytearray(file.read(size))
            text = json.loads(header[4096:].rstrip(b"\0"))
            edit(text)
            header[4096:] = json.dumps(text).encode().ljust(size - 4096, b"\0")
            header[448:512] = bytes(64)
            header[448:480] = hashlib.sha256(header).digest()
            file.seek(at)
            file.write(header)


def gpt_heals(scratch):
    """F1: after a new GPT `cryptsetup repair` heals our device, but not one of stock sizes"""
    tree = both(scratch)
    healed = []
    for number in (1, 2):
        must("sfdisk", "--quiet", tree.image(number), input=b"label: gpt\n")
        check(not opens(tree.image(number), tree.key(number)), "the GPT did no harm")
        run("cryptsetup", "repair", "--batch-mode", tree.image(number))
        healed.append(opens(tree.image(number), tree.key(number)))
    check(healed == [True, False], f"healed (ours, stock): {healed}")


def zeroed_start_heals(scratch):
    """F1: after 64 KiB of zeros `cryptsetup repair` heals our device, but not one of stock sizes"""
    tree = both(scratch)
    healed = []
    for number in (1, 2):
        write_at(tree.image(number), 0, bytes(64 << 10))
        run("cryptsetup", "repair", "--batch-mode", tree.image(number))
        healed.append(opens(tree.image(number), tree.key(number)))
    check(healed == [True, False], f"healed (ours, stock): {healed}")


def failed_syncs(scratch):
    """F3: with EIO at every sync stock luksFormat reports success; cryptformat and cryptdestroy do not"""
    tree = Tree.make(scratch / "t", 2)
    (scratch / "key").write_bytes(b"k" * 64)
    stock = ("cryptsetup", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
    done = run(*EVERY_SYNC_FAILS, *stock, "--key-file", scratch / "key", tree.image(2))
    check(done.status == 0, f"stock cryptsetup has learnt it: {done}")
    done = run(*EVERY_SYNC_FAILS, *tree.command("cryptformat", "--no-open", tree.link()))
    check(done.status == 1, f"cryptformat: {done}")
    check(tree.tab() == FOREIGN_TAB, "crypttab was changed")
    must(*tree.command("cryptformat", "--no-open", tree.link()))
    is_formatted(tree, FOREIGN_TAB, 1)
    done = run(*EVERY_SYNC_FAILS, *tree.command("cryptdestroy", "--yes", tree.link()))
    check(done.status == 1, f"cryptdestroy: {done}")
    must(*tree.command("cryptdestroy", "--yes", tree.link()))


def full_disk_at_backup(scratch):
    """F5: on a full disk stock luksHeaderBackup leaves a stub that blocks the next try; ours leaves nothing"""
    tree = both(scratch)
    backup = scratch / "small/stock"
    (scratch / "small").mkdir()
    with mounted("tmpfs", scratch / "small", "size=1m"):
        stock = ("cryptsetup", "luksHeaderBackup", "--header-backup-file", backup, tree.image(2))
        check(run(*stock).status != 0, "there was room")
        size = backup.stat().st_size if backup.exists() else None
        check(size is not None and size < 16 * MIB, f"stock left {size} bytes")
        must("mount", "-o", "remount,size=64m", scratch / "small")
        check(run(*stock).status != 0, "stock overwrites its stub now")
    tree = Tree.make(scratch / "ours")
    with mounted("tmpfs", tree.conf / "headers", "size=1m,mode=700"):
        done = tree.qs("cryptformat", "--no-open", tree.link())
        check(done.status == 1 and "No space left" in done.err, f"cryptformat: {done}")
        left = os.listdir(tree.conf / "headers")
        check(not left, f"cryptformat left {left}")
        check(opens(tree.image(), tree.key()), "the device does not open")
        must("mount", "-o", "remount,size=64m", tree.conf / "headers")
        must(*tree.command("cryptformat", "--no-open", tree.link()))
        is_formatted(tree, FOREIGN_TAB, 1)


def looking_does_not_write(scratch):
    """F8: luksDump rewrites a damaged header; cryptstatus, devicemap and --test leave every byte"""
    tree = both(scratch)
    write_at(tree.image(), 4096, b"\xff" * 64)
    damaged = digest(tree.image())
    before = tree.fingerprint()
    for words in (
        ("cryptstatus",),
        ("cryptstatus", tree.link()),
        ("devicemap", "--all"),
        ("--json", "devicemap"),
        ("cryptopen", "--test", tree.link()),
        ("cryptopenall", "--test"),
    ):
        done = tree.qs(*words)
        check(tree.fingerprint() == before, f"{words} changed a file ({done})")
    check("damaged" in tree.qs("cryptstatus", tree.link()).out, "cryptstatus does not name the damage")
    with copied(tree.image()) as copy:
        run("cryptsetup", "luksDump", copy)
        check(digest(copy) != damaged, "stock luksDump has become read-only")


def damage_is_named(scratch):
    """F9: with a GPT over the header stock says "not LUKS"; cryptstatus names GPT and intact copy"""
    tree = both(scratch)
    must("sfdisk", "--quiet", tree.image(), input=b"label: gpt\n")
    with copied(tree.image()) as copy:
        check(run("cryptsetup", "isLuks", copy).status != 0, "stock sees a LUKS device")
    done = tree.qs("cryptstatus", tree.link())
    for word in ("damaged", "GPT", "second copy intact"):
        check(word in done.out + done.err, f"cryptstatus does not say {word!r}: {done}")


def parallel_writers(scratch):
    """F10: of 20 stock header writers at once most are refused; of 20 cryptformats none is lost"""
    tree = both(scratch)
    token = scratch / "token"
    token.write_text('{"type":"test","keyslots":[]}')

    def import_token(_):
        return run("cryptsetup", "token", "import", "--json-file", token, tree.image(2)).status

    refused = sum(status != 0 for _, status in in_parallel(import_token, range(20), 20))
    check(refused > 0, "stock cryptsetup queues its writers now")
    check(opens(tree.image(2), tree.key(2)), "stock's device is corrupt")
    tree = Tree.make(scratch / "ours", 20)
    numbers = range(1, 21)

    def form(number):
        return tree.qs("cryptformat", "--no-open", tree.link(number))

    for _, done in in_parallel(form, numbers, 20):
        check(done.status == 0, f"cryptformat: {done}")
    is_formatted(tree, FOREIGN_TAB, *numbers)
    return f"{refused} of 20 refused by stock, 20 of 20 done by us"


def cost_bomb(scratch):
    """F11: 4e9 iterations hold stock open until it is killed; ours refuses the header"""
    tree = both(scratch)

    def edit(text):
        text["keyslots"]["0"]["kdf"]["iterations"] = 4_000_000_000

    rewrite_header(tree.image(), edit)
    with copied(tree.image()) as copy:
        stock = ("cryptsetup", "open", "--test-passphrase", "--key-file", tree.key(), copy)
        done = run("timeout", "--signal=KILL", "2", *stock)
        check(done.status in (137, -9), f"stock came back by itself: {done}")
    refused(tree, "iterations")


def null_cipher(scratch):
    """F12: a data segment with cipher_null opens with stock; ours refuses the header"""
    tree = both(scratch)

    def edit(text):
        text["segments"]["0"]["encryption"] = "cipher_null-ecb"

    rewrite_header(tree.image(), edit)
    check(opens(tree.image(), tree.key()), "stock refuses it now")
    refused(tree, "null")


def refused(tree, word):
    before = tree.fingerprint()
    for words in (("cryptopen", "--test", tree.link()), ("cryptopen", tree.link())):
        done = tree.qs(*words)
        check(done.status == 6 and word in done.err, f"{words[:2]}: {done}")
    done = tree.qs("cryptopenall", "--test")
    check(done.status in (6, 7) and word in done.err, f"cryptopenall: {done}")
    check(tree.fingerprint() == before, "a file changed")


private_mounts()
main(
    gpt_heals,
    zeroed_start_heals,
    failed_syncs,
    full_disk_at_backup,
    looking_does_not_write,
    damage_is_named,
    parallel_writers,
    cost_bomb,
    null_cipher,
)
