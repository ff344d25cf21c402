"""Chunks that points need and whose packs are damaged, and where else the same chunks are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from manifests.entry import ID_SIZE, PackTable, Rows, ids_of
from manifests.manifest import Disk
from pipeline.catalogue import Point
from pipeline.errors import FormatError
from pipeline.mend.harm import Relocated
from pipeline.mend.patient import PatientReader
from pipeline.repository import Repository
from pipeline.transfer.relocations import Moved


@dataclass(slots=True)
class WantedPack:
    """What is wanted of one damaged pack: chunks by offset, as the indexes name them."""

    lineage: str
    chunk_size: int
    chunks: dict[int, Moved] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    """By offset, a position of a disk of `lineage` that holds the chunk: salvage goes by it."""


@dataclass(slots=True)
class Wanted:
    """By damaged pack; and for the ids of all their chunks the places in whole packs that some index knows."""

    packs: dict[bytes, WantedPack] = field(default_factory=dict)
    elsewhere: dict[bytes, Moved] = field(default_factory=dict)

    @property
    def ids(self) -> set[bytes]:
        return {place.id for pack in self.packs.values() for place in pack.chunks.values()}


def wanted_of(
    repository: Repository, bad: set[bytes], points: Sequence[Point], *, tick: Callable[[], object] = lambda: None
) -> Wanted:
    """Chunks that were relocated already are not wanted. Reads the indexes of `points`, twice when something is."""
    wanted = Wanted()
    relocated = Relocated(repository, bad)
    for disk in _disks(points):
        for position, place in _places(repository, disk, packs=bad):
            if not relocated(place.pack, place.offset, place.id):
                pack = wanted.packs.setdefault(place.pack, WantedPack(disk.lineage, disk.chunk_size))
                pack.chunks[place.offset] = place
                if disk.lineage == pack.lineage:
                    pack.positions[place.offset] = position
                pack.positions.setdefault(place.offset, position)
        tick()
    ids = wanted.ids
    for disk in _disks(points) if ids else ():
        for _position, place in _places(repository, disk, ids=ids):
            if place.pack not in bad:
                wanted.elsewhere[place.id] = place
        tick()
    return wanted


def positions_of(repository: Repository, disk: Disk, ids: set[bytes]) -> list[tuple[int, bytes]]:
    """(position, chunk id) of those chunks of a disk that are among `ids`, ascending."""
    reader = PatientReader(repository, disk)
    found: list[tuple[int, bytes]] = []
    for positions, rows in _windows(reader):
        hit = _among(rows, ids)
        raw = ids_of(rows[hit])
        found += [(p, raw[ID_SIZE * i : ID_SIZE * (i + 1)]) for i, p in enumerate(positions[hit].tolist())]
    return found


def _disks(points: Iterable[Point]) -> list[Disk]:
    """Each index once: points of one machine often share theirs."""
    return list({disk.index: disk for point in points for disk in point.manifest.disks}.values())


def _places(
    repository: Repository, disk: Disk, *, packs: set[bytes] | None = None, ids: set[bytes] | None = None
) -> Iterable[tuple[int, Moved]]:
    """Where the chunks of a disk are that lie in `packs`, or that are among `ids`."""
    reader = PatientReader(repository, disk, PackTable(sorted(packs or ())))
    count = len(packs or ())
    for positions, rows in _windows(reader):
        hit = rows["pack"] < count if ids is None else _among(rows, ids)
        positions, rows = positions[hit], rows[hit]
        raw = ids_of(rows)
        columns = (rows[c].tolist() for c in ("pack", "offset", "length", "slot", "flags"))
        for i, (ordinal, *place) in enumerate(zip(*columns, strict=True)):
            yield int(positions[i]), Moved(raw[ID_SIZE * i : ID_SIZE * (i + 1)], reader.packs.ids[ordinal], *place)


def _windows(reader: PatientReader) -> Iterable[tuple[np.ndarray, Rows]]:
    try:
        yield from reader.windows()
    except FormatError:
        return  # without its page directory a disk names nothing


def _among(rows: Rows, ids: set[bytes]) -> np.ndarray:
    raw = ids_of(rows)
    return np.fromiter((raw[at : at + ID_SIZE] in ids for at in range(0, len(raw), ID_SIZE)), bool, len(rows))
