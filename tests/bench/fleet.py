"""Devices to measure with: image files below a directory that --root takes."""

import os
import shutil
import subprocess

IMAGE_SIZE = 64 << 20


def shell(script, *words):
    return ["sh", "-euc", script, "sh", *words]


def quietly(*argv):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


class Fleet:
    """A root directory with images and their by-id links, as --root takes it."""

    def __init__(self, root, count):
        self.root = root
        numbers = range(1, count + 1)
        self.images = [f"{root}/img/d{n}" for n in numbers]
        self.links = [f"/dev/disk/by-id/scsi-350000c0f{n:08x}" for n in numbers]
        self.names = ["enc-" + link.rsplit("/", 1)[1] for link in self.links]
        self.keys = [f"{root}/etc/cryptconf/keys/{name}.key" for name in self.names]
        self.make()

    def make(self):
        """All anew and empty; on disk before the clock runs."""
        shutil.rmtree(self.root, ignore_errors=True)
        for directory in ("img", "dev/disk/by-id", "etc", "run"):
            os.makedirs(f"{self.root}/{directory}")
        for image, link in zip(self.images, self.links):
            with open(image, "wb") as f:
                f.truncate(IMAGE_SIZE)
            os.symlink(image, self.root + link)
        quietly("sync", "-f", self.root)

    def ours(self, qs, *words):
        return [qs, "--root=" + self.root, *words]

    def config(self, text):
        os.makedirs(f"{self.root}/etc/cryptconf", exist_ok=True)
        with open(f"{self.root}/etc/cryptconf/qs-util.conf", "w", encoding="ascii") as f:
            f.write(text)

    def pairs(self):
        return [word for pair in zip(self.images, self.keys) for word in pair]
