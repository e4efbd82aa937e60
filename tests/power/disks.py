"""The disks of a machine whose power is going to fail: an nbdkit plugin that keeps each in a file
and writes down everything that happens to them, and the reader of what it wrote.

One log for all disks, in one order, with each disk's flushes under its name: that is what it takes
to say what two disks hold at the same instant. (QEMU's own blklogwrites has a log for each disk and
nothing to order them by.)

  nbdkit -U SOCKET python disks.py dir=DIR

DIR/NAME.img are the disks; each is an export. DIR/log is written. What is written to the disk MARKS
is no data but a mark in the log; the mark "load JOB" puts the images of DIR/jobs/JOB in place."""

import os
import shutil
import struct

# The log: records of kind, number of the disk, offset, length; writes and marks have their bytes
# behind them.
HEAD = struct.Struct("<BBQQ")
WRITE, ZERO, FLUSH, MARK = range(4)
MARKS = "marks"

API_VERSION = 2  # of nbdkit


def names(directory):
    return sorted(name[:-4] for name in os.listdir(directory) if name.endswith(".img"))


class Disks:
    """What the plugin keeps while it runs; its requests come one at a time."""

    def __init__(self, directory):
        self.directory = directory
        self.names = names(directory)
        self.files = {name: os.open(self.path(name), os.O_RDWR) for name in self.names}
        self.log = os.open(f"{directory}/log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def path(self, name):
        return f"{self.directory}/{name}.img"

    def note(self, kind, name, offset=0, length=0, data=b""):
        os.write(self.log, HEAD.pack(kind, self.names.index(name), offset, length) + bytes(data))

    def write(self, name, offset, data):
        if name == MARKS:
            self.mark(bytes(data).rstrip(b"\0\n").decode())
            return
        os.pwrite(self.files[name], data, offset)
        self.note(WRITE, name, offset, len(data), data)

    def zero(self, name, offset, length):
        os.pwrite(self.files[name], bytes(length), offset)
        self.note(ZERO, name, offset, length)

    def mark(self, text):
        word, _, job = text.partition(" ")
        if word == "load":
            for name in names(f"{self.directory}/jobs/{job}"):
                shutil.copyfile(f"{self.directory}/jobs/{job}/{name}.img", self.path(name))
        self.note(MARK, MARKS, 0, len(text), text.encode())


# ---- what nbdkit calls ----

disks = None
given = {}


def config(key, value):
    given[key] = value


def get_ready():
    global disks
    disks = Disks(given["dir"])


def open(_readonly):
    import nbdkit

    return nbdkit.export_name()


def get_size(name):
    return os.stat(disks.path(name)).st_size


def can_fua(_name):
    import nbdkit

    return nbdkit.FUA_EMULATE  # by a flush, which is then in the log


def pread(name, buffer, offset, _flags):
    os.preadv(disks.files[name], [buffer], offset)


def pwrite(name, buffer, offset, _flags):
    disks.write(name, offset, buffer)


def flush(name, _flags):
    if name != MARKS:
        disks.note(FLUSH, name)


def trim(name, length, offset, _flags):
    disks.zero(name, offset, length)


def zero(name, length, offset, _flags):
    disks.zero(name, offset, length)


# ---- the reader ----


def records(directory):
    """Yields kind, name of the disk, offset, length and data of what is in the log."""
    known = names(directory)
    with os.fdopen(os.open(f"{directory}/log", os.O_RDONLY), "rb") as log:
        while head := log.read(HEAD.size):
            kind, number, offset, length = HEAD.unpack(head)
            data = log.read(length) if kind in (WRITE, MARK) else b""
            yield kind, known[number], offset, length, data
