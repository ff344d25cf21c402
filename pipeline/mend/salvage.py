"""Salvage: disks from what packs say of themselves, when pages or manifests are gone; and how sure each byte of it is.

Of a point whose manifest is there the disk's size and digest are known. What is left of its index is used; positions it
no longer speaks of are filled from the tables of packs. When the digest comes out the disk is proved, whatever the
tables said. Else, and for disks that no manifest speaks of, the newest pack that holds a position is believed: packs
have no order but the time at which the store got them. A position that no table names is taken for zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, product

import numpy as np

from manifests.entry import ID_SIZE, PackTable, Positions, Rows, empty_rows, ids_of, is_zero
from manifests.manifest import Disk
from manifests.ranges import Range
from manifests.tree import LEAF_POSITIONS, disk_digest, leaf
from pipeline.errors import FormatError
from pipeline.mend.patient import PatientReader
from pipeline.mend.tables import Stored
from pipeline.repository import Repository
from pipeline.transfer.fetch import Fetcher, PackJob, by_pack
from pipeline.transfer.prove import to_ranges
from pipeline.writers.base import BlockWriter

MOST_TRIES = 4096
"""Combinations of ambiguous chunks that are tried to meet the digest."""


@dataclass(slots=True)
class Choice:
    """What a salvaged disk is made of. Positions are ascending."""

    size: int
    chunk_size: int
    rows: Rows
    """One entry for each position."""
    proved: bool = False
    """The ids give the digest in the manifest."""
    from_index: int = 0
    """Positions that the index still speaks of."""
    from_tables: int = 0
    ambiguous: list[int] = field(default_factory=list)
    """Positions of which packs hold several contents; the newest was taken, unless proved."""
    assumed_zero: list[int] = field(default_factory=list)
    """Positions of which nothing is known."""


def choose_for_point(
    repository: Repository, disk: Disk, stored: Stored | None, packs: PackTable, before: float
) -> Choice:
    """The disk of a point whose manifest is there and was stored at `before`. `packs` numbers those of `stored`."""
    reader = PatientReader(repository, disk, packs)
    rows = empty_rows(disk.positions)
    known = np.ones(disk.positions, bool)
    named = np.zeros(disk.positions, bool)
    try:
        for positions, found in reader.windows():
            at = positions.astype(np.intp)
            rows[at], named[at] = found, True
        for first, end in reader.lost.values():
            known[first:end] = False
    except FormatError:
        known[:] = False
    # Under a lost page what tiers say is sure; where a segment is lost, what is below it may be older.
    pages_only = all(first // LEAF_POSITIONS in reader.lost_pages for first, _end in reader.lost.values())
    if pages_only:
        known |= named
    choice = Choice(disk.size, disk.chunk_size, rows, from_index=int(known.sum()))
    # Without a lost page the index says what lies below a lost segment, be it zeros.
    base_known = not reader.lost_pages and bool(known.any())
    candidates = _candidates(choice, known, stored, before, base_known=base_known)
    _prove(choice, candidates, disk)
    return choice


def choose_without_point(stored: Stored) -> Choice:
    """A disk that no manifest speaks of: as long as the last position that a pack names."""
    count = int(stored.positions[-1]) + 1
    choice = Choice(count * stored.chunk_size, stored.chunk_size, empty_rows(count))
    _candidates(choice, np.zeros(count, bool), stored, float("inf"))
    return choice


def _candidates(
    choice: Choice, known: np.ndarray, stored: Stored | None, before: float, *, base_known: bool = False
) -> dict[int, list[np.void]]:
    """Fill the positions that are not known with the newest content; gives the ambiguous ones' others."""
    others: dict[int, list[np.void]] = {}
    seen = known.copy()
    if stored is not None and stored.chunk_size == choice.chunk_size:
        usable = stored.positions < len(known)
        usable[usable] = ~known[stored.positions[usable].astype(np.intp)]
        positions, rows, times = stored.positions[usable].astype(np.intp), stored.rows[usable], stored.times[usable]
        # What came after the point is no part of it, unless it was put back by a repair: so it comes last.
        order = np.lexsort((-times, times > before, positions))
        positions, rows = positions[order], rows[order]
        first = np.ones(len(positions), bool)
        first[1:] = positions[1:] != positions[:-1]
        below = choice.rows[positions[first]]
        choice.rows[positions[first]] = rows[first]
        choice.from_tables = int(first.sum())
        seen[positions[first]] = True
        for position, row in zip(positions[~first].tolist(), rows[~first], strict=True):
            choices = others.setdefault(position, [choice.rows[position].copy()])
            if not any(c["id"].tobytes() == row["id"].tobytes() for c in choices):
                choices.append(row)
        # What lies below a lost segment may still be what the point has.
        for position, row in zip(positions[first].tolist(), below, strict=True):
            if (row["length"] or base_known) and row["id"].tobytes() != choice.rows[position]["id"].tobytes():
                others.setdefault(position, [choice.rows[position].copy()]).append(row)
        others = {position: choices for position, choices in others.items() if len(choices) > 1}
    choice.ambiguous = sorted(others)
    choice.assumed_zero = np.flatnonzero(~seen & is_zero(choice.rows)).tolist()
    return others


def _prove(choice: Choice, others: dict[int, list[np.void]], disk: Disk) -> None:
    """Try combinations of what is ambiguous, the newest first, until the digest comes out."""
    leaves = bytearray()
    for first in range(0, len(choice.rows), LEAF_POSITIONS):
        leaves += leaf(ids_of(choice.rows[first : first + LEAF_POSITIONS]))
    positions = sorted(others)
    for combination in islice(product(*(others[p] for p in positions)), MOST_TRIES):
        touched = set()
        for position, row in zip(positions, combination, strict=True):
            if choice.rows[position]["id"].tobytes() != row["id"].tobytes():
                choice.rows[position] = row
                touched.add(position // LEAF_POSITIONS)
        for number in touched:
            first = number * LEAF_POSITIONS
            ids = ids_of(choice.rows[first : first + LEAF_POSITIONS])
            leaves[number * ID_SIZE : (number + 1) * ID_SIZE] = leaf(ids)
        if disk_digest(leaves, size=disk.size, chunk_size=disk.chunk_size).hex() == disk.digest:
            choice.proved = True
            choice.ambiguous, choice.assumed_zero = [], []
            return
    for position in positions:
        choice.rows[position] = others[position][0]


@dataclass(slots=True)
class Written:
    """What came of writing a choice: chunks that could not be read are left as zeros."""

    bytes: int = 0
    unreadable: list[int] = field(default_factory=list)

    def ranges(self, choice: Choice) -> list[Range]:
        return to_ranges(sorted(self.unreadable), size=choice.size, chunk_size=choice.chunk_size)


def write_choice(
    repository: Repository,
    choice: Choice,
    packs: PackTable,
    writer: BlockWriter,
    *,
    tick: Callable[[], object] = lambda: None,
) -> Written:
    """Write a new disk. Every chunk is proved by its id, and comes from where it was relocated to if it has to."""
    written = Written()
    fetcher = Fetcher(repository, choice.chunk_size, packs)
    for job in _jobs(choice):
        try:
            _write(fetcher, job, choice, writer, written)
        except FormatError:
            for i in range(len(job.positions)):
                single = PackJob(job.pack, job.positions[i : i + 1], job.rows[i : i + 1])
                try:
                    _write(fetcher, single, choice, writer, written)
                except FormatError:
                    written.unreadable += single.positions.tolist()
        tick()
    writer.flush()
    written.bytes = len(choice.rows) * choice.chunk_size - len(written.unreadable) * choice.chunk_size
    return written


def _write(fetcher: Fetcher, job: PackJob, choice: Choice, writer: BlockWriter, written: Written) -> None:
    for position, plain in fetcher.chunks(job):
        offset = position * choice.chunk_size
        writer.write(offset, [memoryview(plain)[: choice.size - offset]])


def _jobs(choice: Choice) -> Iterator[PackJob]:
    step = 16 * LEAF_POSITIONS
    for first in range(0, len(choice.rows), step):
        rows = choice.rows[first : first + step]
        at: Positions = np.flatnonzero(~is_zero(rows)).astype("<u8")
        yield from by_pack(at + first, rows[at.astype(np.intp)])
