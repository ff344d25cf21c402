"""The protocol as data: in which order collectors and writers do what. The collector executes the first list, and
tests/model searches all interleavings of both for one that loses something. FORMAT.md, section 13, says why."""

from __future__ import annotations

from typing import Literal

CollectorStep = Literal["clock", "tombstones", "objects", "sessions", "fence", "points", "publish", "delete"]

COLLECTOR: tuple[CollectorStep, ...] = (
    "clock",  # the store's time, now: whatever is younger than the grace then, is left alone
    "tombstones",  # which points are forgotten, for longer than the grace
    "objects",  # everything there is: only what is listed here can be deleted
    "sessions",  # who writes: objects since the beginning of a live session's first attempt, and its parents, are kept
    "fence",  # of what nobody writes any more nothing can be committed: a void record at the announced key
    "points",  # what is needed: all manifests that exist now
    "publish",  # what will be deleted, and why
    "delete",
)

WriterStep = Literal["announce", "check", "store", "commit", "end"]

WRITER: tuple[WriterStep, ...] = (
    "announce",  # the session: from now on collectors that read sessions see it
    "check",  # only then: what it builds on is there and not forgotten, and its key is free
    "store",
    "commit",
    "end",
)
