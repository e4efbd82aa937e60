#!/usr/bin/python3 -B
"""usage: hostile-tar.py KIND

A tar archive as the content of a key bundle, on standard output: `good`, or one
that must be refused, in the way that KIND says."""

import io
import json
import sys
import tarfile

MANIFEST = {"format": "qs-util key bundle", "version": 1, "host": "x", "created": "x", "devices": []}


def main():
    kind = sys.argv[1]
    manifest = dict(MANIFEST)
    out = tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.USTAR_FORMAT)

    def add(name, text="x", **fields):
        member = tarfile.TarInfo(name)
        member.size = len(text)
        for key, value in fields.items():
            setattr(member, key, value)
        out.addfile(member, io.BytesIO(text.encode()))

    if kind == "newer":
        manifest["version"] = 2
    if kind == "device":
        manifest["devices"] = [{"name": "../x", "device": "/dev/x", "key": "cryptconf/keys/new.key"}]
    if kind != "no-manifest":
        add("manifest.json", json.dumps(manifest))
    add("cryptconf/keys/new.key", "a key")
    if kind == "parent":
        add("cryptconf/keys/../../../evil")
    elif kind == "absolute":
        add("/evil")
    elif kind == "link":
        add("cryptconf/keys/link.key", "", type=tarfile.SYMTYPE, linkname="/etc/shadow")
    elif kind == "hard-link":
        add("cryptconf/keys/link.key", "", type=tarfile.LNKTYPE, linkname="/etc/shadow")
    elif kind == "twice":
        add("cryptconf/keys/new.key", "another")
    elif kind == "pending":
        add("cryptconf/pending/enc-x.json", "{}")
    elif kind == "deep":
        add("cryptconf/keys/a/b")
    out.close()


main()
