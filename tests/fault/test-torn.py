#!/usr/bin/python3 -B
"""Half-written and torn headers: what a power cut leaves of writes that were not yet synced, and
a second interruption of a run that mends them."""

import random

from faultbench import (
    FOREIGN_TAB,
    HEADER_SIZE,
    SECOND_AT,
    Tree,
    check,
    data_is_untouched,
    in_parallel,
    is_destroyed,
    is_formatted,
    main,
    must,
    opens,
    read_part,
    remove,
    write_at,
)
from formatting import Format
from sweep import KILL

SECTOR = 512
# In the order in which they are written, each synced before the next: keyslots, second header, first.
PARTS = ((2 * SECOND_AT, HEADER_SIZE), (SECOND_AT, 2 * SECOND_AT), (0, SECOND_AT))


def interrupted(scratch):
    """A tree with durable journal and key and a blank disk, and the header that would have come."""
    tree = Tree.make(scratch / "begun")
    headers = tree.conf / "headers"
    headers.rmdir()
    headers.write_text("in the way")
    done = tree.qs("cryptformat", "--no-open", tree.link())
    check(done.status == 1 and tree.journals(), f"the format was to fail at the backup: {done}")
    headers.unlink()
    headers.mkdir(mode=0o700)
    header = read_part(tree.image(), 0, HEADER_SIZE)
    write_at(tree.image(), 0, bytes(HEADER_SIZE))
    must("fallocate", "--dig-holes", tree.image())
    return tree, header


def torn(image, part, old, new, choose):
    """Write a random half of the sectors of one part, as a disk may that loses its power."""
    for at in range(*part, SECTOR):
        if choose.random() < 0.5:
            write_at(image, at, new[at : at + SECTOR])
        elif old is not None:
            write_at(image, at, old[at : at + SECTOR])


def each_state(scratch, template, judge, old, new, parts, rounds):
    """Torn states in every part, the parts before it whole. Judges them in parallel."""

    def one(state):
        index, attempt = state
        tree = template.copy(scratch / f"state-{index}-{attempt}")
        for start, end in parts[:index]:
            write_at(tree.image(), start, new[start:end])
        torn(tree.image(), parts[index], old, new, random.Random(100 * index + attempt))
        judge(tree)
        remove(tree.root)

    states = [(index, attempt) for index in range(len(parts)) for attempt in range(rounds)]
    for state, error in in_parallel(one, states):
        if isinstance(error, Exception):
            raise type(error)(f"part {state[0]}, state {state[1]}: {error}")
    return f"{len(states)} states"


def torn_format(scratch):
    """a header torn while it was written: the second run finishes with the same key"""
    template, header = interrupted(scratch)
    key = template.key().read_bytes()

    def judge(tree):
        must(*tree.command("cryptformat", "--no-open", tree.link()))
        check(tree.key().read_bytes() == key, "another key")
        is_formatted(tree, FOREIGN_TAB, 1)
        data_is_untouched(tree)

    return each_state(scratch, template, judge, None, header, PARTS, 8)


def torn_destroy(scratch):
    """a header torn while it was erased: the second run ends it, the saved key opens nothing"""
    template = Tree.make(scratch / "t")
    must(*template.command("cryptformat", "--no-open", template.link()))
    saved = scratch / "saved"
    saved.write_bytes(template.key().read_bytes())
    check(opens(template.image(), saved), "the saved key is of no use")
    link = template.link()
    journal = f'{{"op":"destroy","uuid":"","device":"{link}"}}'
    (template.pending / f"{template.name()}.json").write_text(journal)

    def judge(tree):
        must(*tree.command("cryptdestroy", "--yes", link))
        is_destroyed(tree, FOREIGN_TAB, {1: saved}, 1)
        data_is_untouched(tree)

    parts = ((2 * SECOND_AT, HEADER_SIZE), (0, 2 * SECOND_AT))
    return each_state(scratch, template, judge, None, bytes(HEADER_SIZE), parts, 8)


def foreign_content_is_kept(scratch):
    """a file system made on a half-formatted disk: the second run refuses it"""
    template, header = interrupted(scratch)
    for index in range(2):
        tree = template.copy(scratch / f"foreign-{index}")
        if index:
            write_at(tree.image(), SECOND_AT, header[SECOND_AT:])
        must("mkswap", "--quiet", tree.image()) if index else must("mkfs.ext4", "-qF", tree.image(), "8m")
        before = read_part(tree.image(), 0, HEADER_SIZE)
        done = tree.qs("cryptformat", "--no-open", tree.link())
        check(done.status in (4, 6), f"{done}")
        check(read_part(tree.image(), 0, HEADER_SIZE) == before, "the file system was overwritten")


def interrupted_twice(scratch):
    """a run that mends a half-written header, killed at every changing call: a third one finishes"""
    template, header = interrupted(scratch)
    write_at(template.image(), SECOND_AT, header[SECOND_AT:])
    return Format(template).sweep(scratch, KILL)


main(torn_format, torn_destroy, foreign_content_is_kept, interrupted_twice)
