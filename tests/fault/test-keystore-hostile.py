#!/usr/bin/python3 -B
"""What may lie where keystore.json, its keys and the tokens belong: damaged, somebody else's, of
another time. Each command refuses it with a sentence, and whoever refuses has written nothing."""

import base64
import json
import os
import shutil

from enrolling import metadata
from faultbench import Tree, check, main, must, opens
from keystoring import directory, files, recover

STATUS = ("keystore", "status")
VERIFY = ("keystore", "verify")
OPEN = ("cryptopen", "--test", "@1")
ROTATE = ("keystore", "rotate", "--force")
DISABLE = ("--yes", "keystore", "disable")
REWRAP = ("keystore", "rewrap", "@1")
EVERYONE = (STATUS, VERIFY, OPEN, ROTATE, REWRAP)
LOOKING = (STATUS, VERIFY, OPEN)
ALL = bool(os.environ.get("QS_FAULT_ALL"))  # else a sample of what is made by a rule
ENDS = (*range(8), 75, 78)


def enrolled(scratch, name="t", rotations=1):
    """Two devices, which only the keystore opens; REST: other names of the tree."""
    tree = Tree.make(scratch / name, 2)
    links = [tree.link(1), tree.link(2)]
    must(*tree.command("cryptformat", "--no-open", *links))
    must(*tree.command("--yes", "keystore", "enable"))
    must(*tree.command("cryptenroll", *links, "--keystore"))
    for _ in range(rotations):
        must(*tree.command(*ROTATE))
    shutil.rmtree(tree.conf / "keys")
    return tree


def store_file(tree):
    return directory(tree) / "keystore.json"


def changed(tree, **members):
    """keystore.json with other members, as somebody edits it on purpose; None: without it."""
    store = json.loads(store_file(tree).read_text(encoding="ascii"))
    store.update({"sum": None, **members})
    store = {name: value for name, value in store.items() if value is not None}
    store_file(tree).write_text(json.dumps(store), encoding="ascii")


def told(tree, words, *statuses):
    """The command's end: it says something in one sentence for each thing, and in order."""
    done = tree.qs(*(tree.link(int(word[1:])) if word.startswith("@") else word for word in words))
    check(done.status in statuses, f"{' '.join(words)}: {done}")
    command = next(word for word in words if not word.startswith("-"))
    check(done.status == 0 or f"qs-util {command}" in done.err, f"{' '.join(words)} says nothing: {done}")
    return done


def refused(tree, before, words, statuses, said):
    done = told(tree, words, *statuses)
    check(said in done.err + done.out, f"{' '.join(words)} does not say {said!r}: {done}")
    after = tree.fingerprint()
    differ = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    check(not differ, f"{' '.join(words)} wrote {differ}")


def all_refused(tree, said, statuses, commands=EVERYONE):
    before = tree.fingerprint()
    for words in commands:
        refused(tree, before, words, statuses, said)


# ---- keystore.json ----


def cut_at_every_byte(scratch):
    """keystore.json cut off at any byte: refused by all that read it, and nothing is written"""
    tree = enrolled(scratch)
    whole = store_file(tree).read_bytes()
    before = None
    for size in range(len(whole)):
        if not whole[size:].strip():
            continue
        store_file(tree).write_bytes(whole[:size])
        commands = EVERYONE if size % 40 == 0 else (STATUS,)
        if len(commands) > 1:
            before = tree.fingerprint()
        for words in commands:
            done = told(tree, words, 78)
            check("keystore.json" in done.err, f"does not say which file: {done}")
        if len(commands) > 1:
            check(tree.fingerprint() == before, f"cut at {size}: something was written")
    return f"{len(whole)} bytes"


def flipped_bits(scratch):
    """a bit of keystore.json flipped: refused by all that read it, and nothing is written"""
    tree = enrolled(scratch)
    whole = store_file(tree).read_bytes()
    before = None
    points = range(0, 8 * len(whole), 1 if ALL else 61)
    for number, bit in enumerate(points):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        store_file(tree).write_bytes(content)
        commands = (*EVERYONE, DISABLE) if number % 24 == 0 else (STATUS,)
        if len(commands) > 1:
            before = tree.fingerprint()
        for words in commands:
            done = told(tree, words, 78)
            check("keystore.json" in done.err, f"does not say which file: {done}")
        if len(commands) > 1:
            check(tree.fingerprint() == before, f"bit {bit}: something was written")
    store_file(tree).write_bytes(whole)
    told(tree, OPEN, 0)
    return f"{len(points)} bits"


def flipped_bits_without_a_sum(scratch):
    """the same where there is no sum: whatever a rotation makes of it, both devices' keys are still there"""
    tree = enrolled(scratch)
    changed(tree)
    told(tree, OPEN, 0)
    check("sum" not in json.loads(store_file(tree).read_text(encoding="ascii")), "who only looks wrote")
    whole = store_file(tree).read_bytes()
    refusals = 0
    # By the name of the store alone all devices would look like somebody else's.
    points = range(0, len(whole), 5) if ALL else [*range(3, len(whole), 29), whole.index(b'"store"') + 14]
    for number, at in enumerate(points):
        other = tree.copy(scratch / f"flipped-{at}")
        content = bytearray(whole)
        content[at] ^= 1 << number % 3
        store_file(other).write_bytes(content)
        before = other.fingerprint()
        statuses = [told(other, words, *ENDS).status for words in LOOKING]
        check(other.fingerprint() == before, f"byte {at}: who only looks wrote")
        refusals += statuses[0] != 0
        for words in (ROTATE, ROTATE, DISABLE):
            told(other, words, *ENDS)
        for device in (1, 2):
            still_there(other, device)
        shutil.rmtree(other.root)
    check(refusals > 0, "none was refused")
    return f"{refusals} of {len(points)} refused"


def still_there(tree, number):
    """What unwraps the key of device NUMBER is among the files of the keystore."""
    key = tree.root / "recovered"
    recover(tree, tree.image(number), key)
    check(opens(tree.image(number), key), f"device {number} does not open")


def store_cases():
    """(name, what is done to the tree, exit statuses, words of the sentence)"""

    def write(content):
        return lambda tree: store_file(tree).write_bytes(content)

    def mode(bits):
        return lambda tree: store_file(tree).chmod(bits)

    return [
        ("empty", write(b""), (78,), "keystore.json is not usable: it is empty"),
        ("oversized", write(b'{"version": 1, "x": "' + b"x" * (8 << 20) + b'"}'), (2,), "keystore.json has"),
        ("deep", write(b"[" * 100000), (78,), "keystore.json"),
        ("NUL", write(b'{"version":1}\0'), (78,), "keystore.json"),
        ("newer", lambda tree: changed(tree, version=2), (78,), "newer"),
        ("public", mode(0o644), (2,), "mode 0644"),
        ("writable", mode(0o666), (2,), "mode 0666"),
        ("2^64", lambda tree: changed(tree, current=1 << 64), (78,), "keystore.json"),
        ("current of the future", lambda tree: changed(tree, current=9), (78,), "current"),
        ("unknown provider", lambda tree: changed(tree, provider="nobody"), (78,), "provider"),
        ("unknown member", lambda tree: changed(tree, more=1), (78,), "keystore.json"),
        ("directory", lambda tree: (store_file(tree).unlink(), store_file(tree).mkdir()), (1, 2, 78), "keystore.json"),
        ("symlink", lambda tree: (store_file(tree).rename(tree.root / "var/k"),
                                  store_file(tree).symlink_to(tree.root / "var/k")), (2,), "symbolic link"),
    ]


def store_file_of_another_kind(scratch):
    """keystore.json empty, huge, deep, newer, public, no file: refused by all, and nothing is written"""
    template = enrolled(scratch)
    for name, put, statuses, said in store_cases():
        tree = template.copy(scratch / name.replace(" ", "-"))
        put(tree)
        try:
            all_refused(tree, said, statuses)
        except Exception as error:
            raise type(error)(f"{name}: {error}") from None
        shutil.rmtree(tree.root)
    return f"{len(store_cases())} cases"


def store_file_of_another_one(scratch):
    """keystore.json from before a rotation, or another keystore's: told, nothing is written, none is erased"""
    template = enrolled(scratch, rotations=0)
    older = store_file(template).read_bytes()
    must(*template.command(*ROTATE))
    changed(template, store="00000000-0000-4000-8000-000000000000")
    cases = (
        ("older", older, "which the keystore does not have yet"),
        ("another's", store_file(template).read_bytes(), "another keystore"),
    )
    for name, content, said in cases:
        tree = template.copy(scratch / name)
        store_file(tree).write_bytes(content)
        before = tree.fingerprint()
        refused(tree, before, OPEN, (2,), said)
        refused(tree, before, VERIFY, (2, 6, 7), said)
        refused(tree, before, STATUS, (0,), "")
        refused(tree, before, DISABLE, (6,), "")
        for _ in range(3):
            told(tree, ROTATE, *ENDS)
        for device in (1, 2):
            still_there(tree, device)
        shutil.rmtree(tree.root)


# ---- tokens ----


def keystore_token(tree, number=1):
    tokens = metadata(tree.image(number))["tokens"]
    return next((name, token) for name, token in tokens.items() if token["type"] == "qs-keystore")


def put_token(tree, token):
    """Into the header of device 1, whose checksums are right afterwards."""
    file = tree.root / "var/token.json"
    file.write_text(json.dumps(token), encoding="ascii")
    name, _ = keystore_token(tree)
    must("cryptsetup", "token", "import", "--token-replace", "--token-id", name, "--json-file", file, tree.image())


def fields(token, path=()):
    """The paths of its texts and numbers, but of its type, by which it would be no token of ours, and
    of when it was made, which nobody relies on."""
    for name, value in token.items():
        if isinstance(value, dict):
            yield from fields(value, (*path, name))
        elif name not in ("type", "keyslots", "qs-time"):
            yield (*path, name)


def edited(token, path, edit):
    """A copy in which EDIT was done to the member at PATH; None removes it."""
    copy = json.loads(json.dumps(token))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = edit(inner[path[-1]])
    if inner[path[-1]] is None:
        del inner[path[-1]]
    return copy


def flipped(value):
    if isinstance(value, int):
        return value ^ 4
    at = len(value) // 2
    return value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :]


def halved(value):
    return value / 2 if isinstance(value, int) else value[: len(value) // 2]


def token_cases(token, other):
    """(name, token, words of the sentence)"""
    for path in list(fields(token))[:: 1 if ALL else 4]:
        name = ".".join(path)
        yield f"{name} flipped", edited(token, path, flipped), ""
        yield f"{name} cut", edited(token, path, halved), ""
        yield f"{name} missing", edited(token, path, lambda value: None), ""
        yield f"{name} huge", edited(token, path, lambda value: "A" * 20000), ""
    yield "of the other device", other, "another volume"
    yield "of another keystore", renamed(token, "00000000-0000-4000-8000-000000000000", 1), "another keystore"
    yield "of the future", renamed(token, token["store"], 9), "generation 9, which the keystore does not have yet"
    yield "of another generation", renamed(token, token["store"], 1), ""
    yield "two keyslots", edited(token, ("keyslots",), lambda value: [*value, "0"]), "keyslots"
    yield "another keyslot", edited(token, ("keyslots",), lambda value: ["0"]), "another volume or keyslot"


def renamed(token, store, generation):
    """As another keystore, or another generation of ours, would have named it."""
    text = token["jwe"]["protected"]
    protected = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    protected["kid"] = f"{store}/{generation}"
    text = base64.urlsafe_b64encode(json.dumps(protected).encode()).decode().rstrip("=")
    return {**token, "store": store, "generation": generation, "jwe": {**token["jwe"], "protected": text}}


def judge_token(tree, said):
    """Whoever only looks writes nothing; the device and its backup stay as they are in any case."""
    before = tree.fingerprint()
    for words in (VERIFY, OPEN):
        refused(tree, before, words, (2, 3, 4, 6, 7), said)
    refused(tree, before, STATUS, ENDS, "")
    ours = [name for name in before if name.startswith(("img/d1", f"etc/cryptconf/headers/{tree.name()}"))]
    for words in (REWRAP, ROTATE, ROTATE, ROTATE):
        told(tree, words, *ENDS)
        after = tree.fingerprint()
        check(all(before[name] == after[name] for name in ours), f"{' '.join(words)} wrote to the device")
    check("1.kek" in files(tree), "a generation was retired while a token could not be believed")


def hostile_tokens(scratch):
    """a token damaged, moved, foreign, huge: not believed, nothing written, no generation retired"""
    template = enrolled(scratch)
    token, other = keystore_token(template)[1], keystore_token(template, 2)[1]
    count = 0
    for name, hostile, said in token_cases(token, other):
        tree = template.copy(scratch / f"token-{count}")
        count += 1
        put_token(tree, hostile)
        try:
            judge_token(tree, said)
        except Exception as error:
            raise type(error)(f"{name}: {error}") from None
        shutil.rmtree(tree.root)
    return f"{count} tokens"


main(
    cut_at_every_byte,
    flipped_bits,
    flipped_bits_without_a_sum,
    store_file_of_another_kind,
    store_file_of_another_one,
    hostile_tokens,
)
