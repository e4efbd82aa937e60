"""Goal G9: a new generation of the key-encryption key for a fleet, against what stock tools take to put
another token into each header and to keep a backup of it."""

import json
import os
import shutil
import subprocess

from fleet import Fleet, quietly, shell
from measure import compare

AIM = 0.08
# Below a hundred devices starting up weighs more. A thousand are minutes and 20 GB for the peer: on
# disk, and once.
SIZES = (("tmpfs", 1, None), ("tmpfs", 10, None), ("tmpfs", 100, AIM), ("disk", 100, AIM), ("disk", 1000, AIM))

LOOP = """cd "$1"; shift
for image; do
	name=${image##*/}
	cryptsetup token import --token-replace --token-id "$(cat $name.number)" --json-file $name.json "$image"
	rm -f $name.backup
	cryptsetup luksHeaderBackup "$image" --header-backup-file $name.backup
	sync
done"""


def keystore_fleet(b, directory, count):
    fleet = Fleet(os.path.join(directory, f"rotate-{count}"), count)
    quietly(*fleet.ours(b.qs, "cryptformat", "--no-open"), *fleet.images)
    quietly(*fleet.ours(b.qs, "--yes", "keystore", "enable"))
    quietly(*fleet.ours(b.qs, "cryptenroll"), *fleet.links, "--keystore")
    return fleet


def keystore_token(image):
    done = subprocess.run(["cryptsetup", "luksDump", "--dump-json-metadata", image], check=True, capture_output=True)
    tokens = json.loads(done.stdout)["tokens"]
    return next((number, token) for number, token in tokens.items() if token["type"] == "qs-keystore")


def peer_fleet(fleet, directory):
    """Copies of the same headers, and a token to import for each."""
    images = []
    os.makedirs(directory)
    for image in fleet.images:
        name = os.path.join(directory, os.path.basename(image))
        quietly("cp", "--sparse=always", image, name)
        number, token = keystore_token(image)
        with open(f"{name}.number", "w", encoding="ascii") as f:
            f.write(number)
        with open(f"{name}.json", "w", encoding="ascii") as f:
            json.dump(token, f)
        images.append(name)
    quietly("sync", "-f", directory)
    return images


def one_size(b, place, count, aim):
    directory = b.places()[place]
    fleet = keystore_fleet(b, directory, count)
    copies = os.path.join(directory, f"rotate-peer-{count}")
    images = peer_fleet(fleet, copies)
    s = b.interleave({
        "ours": (fleet.ours(b.qs, "keystore", "rotate", "--force"), None),
        "peer": (shell(LOOP, copies, *images), None),
    }, b.rounds if count <= 100 else 1)
    shutil.rmtree(fleet.root)
    shutil.rmtree(copies)
    return compare("G9", f"`keystore rotate`, N = {count}, {place}",
                   "`token import --token-replace`, `luksHeaderBackup`, `sync` loop", s["ours"], s["peer"], aim)


def rotation(b):
    for place, count, aim in SIZES:
        yield one_size(b, place, count, aim)
