"""Proof of a target: hash what is on it and compare with the index of the point."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import numpy as np

from manifests import tree
from manifests.entry import ID_SIZE, ZERO_ID, Positions, Rows, ids_of
from manifests.sealing import Buffer
from manifests.tree import LEAF_POSITIONS
from pipeline.exporters.aligned import Aligned
from pipeline.transfer.index_file import IndexFile

_STEP = 4 << 20


class Readable(Protocol):
    """What an Exporter and a BlockWriter have in common."""

    def read_into(self, offset: int, buffer: memoryview) -> None: ...


class Hasher:
    """Ids of the chunks on a disk. Safe to use from many threads; each has its own buffer."""

    def __init__(self, disk: Readable, *, size: int, chunk_size: int, chunk_id: Callable[[Buffer], bytes]) -> None:
        self._disk = disk
        self._chunk_id = chunk_id
        self._size, self._chunk_size = size, chunk_size
        self._zero = bytes(chunk_size)
        self._local = threading.local()

    def ids(self, first: int, count: int) -> bytes:
        """Ids of `count` positions from `first`, side by side."""
        size = self._chunk_size
        step = max(_STEP // size, 1)
        found: list[bytes] = []
        for at in range(first, first + count, step):
            number = min(step, first + count - at)
            view = self.read(at, number)
            buffer, start = self._local.aligned.buffer, self._local.aligned.start
            for offset in range(0, number * size, size):
                if buffer.startswith(self._zero, start + offset):
                    found.append(ZERO_ID)
                else:
                    found.append(self._chunk_id(view[offset : offset + size]))
        return b"".join(found)

    def read(self, first: int, count: int) -> memoryview:
        """The chunks themselves, at most 4 MiB; valid until this thread's next call. Zeros behind the disk's end."""
        local = self._local
        size = self._chunk_size
        if not hasattr(local, "aligned"):
            local.aligned = Aligned(max(_STEP, size))
        view: memoryview = local.aligned.view
        length = min(count * size, self._size - first * size)
        self._disk.read_into(first * size, view[:length])
        if length < count * size:
            view[length : count * size] = bytes(count * size - length)
        return view


def leaf_of(hasher: Hasher, data: list[tuple[int, int]], leaf: int, positions: int) -> bytes:
    """The leaf over what is on the disk; `data` are the (first, end) positions in it that may not be zero."""
    first = leaf * LEAF_POSITIONS
    size = min(LEAF_POSITIONS, positions - first)
    if not data:
        return tree.zero_leaf(size)
    ids = bytearray(size * ID_SIZE)
    for low, high in data:
        ids[(low - first) * ID_SIZE : (high - first) * ID_SIZE] = hasher.ids(low, high - low)
    return tree.leaf(ids)


def differing(hasher: Hasher, copy: IndexFile, leaf: int, positions: int) -> list[int]:
    """Positions below a leaf whose chunk is not what the index says."""
    first = leaf * LEAF_POSITIONS
    size = min(LEAF_POSITIONS, positions - first)
    there, wanted = hasher.ids(first, size), ids_of(copy.rows(first, size))
    return [
        first + i
        for i in range(size)
        if there[i * ID_SIZE : (i + 1) * ID_SIZE] != wanted[i * ID_SIZE : (i + 1) * ID_SIZE]
    ]


def unproved(hasher: Hasher, positions: Positions, rows: Rows) -> list[int]:
    """Those of ascending `positions` whose chunk on the disk is not that of `rows`."""
    wanted = ids_of(rows)
    bad: list[int] = []
    bounds = [0, *(np.flatnonzero(np.diff(positions) != 1) + 1).tolist(), len(positions)]
    for start, end in pairwise(bounds):
        if start == end:
            continue
        there = hasher.ids(int(positions[start]), end - start)
        if there != wanted[start * ID_SIZE : end * ID_SIZE]:
            bad += [
                int(positions[i])
                for i in range(start, end)
                if there[(i - start) * ID_SIZE : (i - start + 1) * ID_SIZE] != wanted[i * ID_SIZE : (i + 1) * ID_SIZE]
            ]
    return bad


def to_ranges(positions: list[int], *, size: int, chunk_size: int) -> list[tuple[int, int]]:
    """Ascending positions as (offset, length) in bytes, adjacent ones joined."""
    ranges: list[tuple[int, int]] = []
    for position in positions:
        start, end = position * chunk_size, min((position + 1) * chunk_size, size)
        if ranges and sum(ranges[-1]) == start:
            ranges[-1] = (ranges[-1][0], end - ranges[-1][0])
        else:
            ranges.append((start, end - start))
    return ranges
