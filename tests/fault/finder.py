"""Looks for secrets: any 16 bytes in a row of one, as they are, in hexadecimal and in base64."""

import array
import base64
import os

WINDOW = 16
WORD = 8  # a run of WINDOW bytes has a whole aligned word in it wherever it begins
CHUNK = 8 << 20
BLOCK = 1024  # where something was found once, no more is looked for
ENCODED = 4096  # so much of a secret is looked for in other spellings too


def spellings(secret):
    """The secret, and how a program may have printed it."""
    yield secret
    part = secret[:ENCODED]
    yield part.hex().encode()
    yield part.hex().upper().encode()
    for shift in range(3):
        yield base64.b64encode(part[shift:]).rstrip(b"=")


class Finder:
    def __init__(self, found_in):
        self.texts = [(name, text) for name, secret in found_in.items() for text in spellings(secret)]
        self.words = set()
        for _, text in self.texts:
            for shift in range(WORD):
                part = text[shift : len(text) - (len(text) - shift) % WORD]
                self.words.update(array.array("Q", part))

    def search(self, path):
        """[(name, offset)] of what is in a file, holes left out; once for each BLOCK."""
        found = {}
        with open(path, "rb") as file:
            for at, data in pieces(file.fileno()):
                words = array.array("Q", data + bytes(-len(data) % WORD))
                if self.words.isdisjoint(words):
                    continue
                for index, word in enumerate(words):
                    offset = at + index * WORD
                    if word in self.words and offset // BLOCK not in found:
                        name = self.name_of(data, index * WORD)
                        found.update({offset // BLOCK: (name, offset)} if name else {})
        return list(found.values())

    def name_of(self, data, at):
        """Whose WINDOW bytes lie around a word."""
        for start in range(at - (WINDOW - WORD), at + 1):
            window = data[max(start, 0) : start + WINDOW]
            for name, text in self.texts:
                if len(window) == WINDOW and window in text:
                    return name
        return None


def pieces(fd):
    """Offset and content of what is not a hole, in chunks that overlap by a window."""
    end = os.fstat(fd).st_size
    at = 0
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        yield at, os.pread(fd, CHUNK + WINDOW, at)
        at += CHUNK
