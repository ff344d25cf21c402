"""A local copy of a disk's index, verifiable against the digest in its manifest.

A folder with sparse files, addressed by position, so that reading or changing some positions costs nothing in
proportion to the disk, and zero chunks cost no space:

    rows     48 bytes a position: index entries (`manifests.entry.ENTRY`)
    nodes    32 bytes for 64 positions: level 1 of the Merkle tree; zeros stand for a node of zero chunks only
    leaves   32 bytes for 4,096 positions: level 2, likewise
    places   8 bytes for 64 positions: check of the rows with all their columns; zeros for rows of zeros
    packs    32 bytes a pack: the table that `pack` in a row refers to
    head     JSON: which point this is a copy of, and a check of it, the leaves and the packs; written last

Nothing here is trusted: the leaves must give the manifest's digest, nodes must give their leaf, ids their node. So a
torn, stale or damaged copy is noticed where it is used. `pack`, `offset` and the like serve to account for live bytes,
never to find data; what damages them is noticed by the checks.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from blake3 import blake3

from manifests import tree
from manifests.entry import ENTRY, ID_SIZE, PackTable, Positions, Rows, ids_of, is_zero
from manifests.tree import FAN_OUT, LEAF_POSITIONS

_ROW = ENTRY.itemsize
_CHECK = 8
_ZERO_NODE = bytes(ID_SIZE)


class StaleCopy(Exception):
    """The local copy does not agree with the manifest: it must be made anew. Never shown to a user."""


@dataclass(frozen=True, slots=True)
class Head:
    """Which disk of which point a copy stands for."""

    repository: str
    lineage: str
    size: int
    chunk_size: int
    machine: str
    sequence: int
    number: int
    digest: str
    packs: int

    @property
    def positions(self) -> int:
        return -(-self.size // self.chunk_size)


class IndexFile:
    """Open copy. Reading is safe from several threads; changing is for one thread while nobody reads."""

    def __init__(self, folder: Path, positions: int, packs: PackTable, leaves: bytearray) -> None:
        self.folder = folder
        self.positions = positions
        self.packs = packs
        self.leaves = leaves
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._rows = os.open(folder / "rows", flags, 0o600)
        self._nodes = os.open(folder / "nodes", flags, 0o600)
        self._places = os.open(folder / "places", flags, 0o600)
        self._verified = bytearray(len(leaves) // ID_SIZE)
        self._lock = threading.Lock()

    # -- life ------------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path, positions: int, packs: PackTable | None = None) -> IndexFile:
        """An empty copy (all chunks zero) in a new folder; what was there is removed."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        file = cls(folder, positions, PackTable() if packs is None else packs, tree.zero_leaves(positions))
        os.ftruncate(file._rows, positions * _ROW)
        os.ftruncate(file._nodes, -(-positions // FAN_OUT) * ID_SIZE)
        os.ftruncate(file._places, -(-positions // FAN_OUT) * _CHECK)
        return file

    @classmethod
    def open(cls, folder: Path) -> tuple[Head, IndexFile]:
        """The copy in `folder`. Raises StaleCopy when it is absent, incomplete or its leaves do not give its digest."""
        try:
            document, _, check = (folder / "head").read_bytes().partition(b"\n")
            packs = (folder / "packs").read_bytes()
            stored = (folder / "leaves").read_bytes()
            rows_size = (folder / "rows").stat().st_size
            if _check_of(document, stored, packs) != check:
                raise StaleCopy(f"{folder}: head, leaves and packs do not belong together")
            head = Head(**json.loads(document))
        except (OSError, ValueError, TypeError) as error:
            raise StaleCopy(f"{folder}: {error}") from error
        if rows_size != head.positions * _ROW or len(packs) != head.packs * ID_SIZE:
            raise StaleCopy(f"{folder}: rows or packs are not all there")
        leaves = _expand_leaves(stored, head.positions)
        if (
            len(leaves) != len(tree.zero_leaves(head.positions))
            or tree.disk_digest(leaves, size=head.size, chunk_size=head.chunk_size).hex() != head.digest
        ):
            raise StaleCopy(f"{folder}: leaves do not give the digest")
        table = PackTable(packs[i : i + ID_SIZE] for i in range(0, head.packs * ID_SIZE, ID_SIZE))
        try:
            return head, cls(folder, head.positions, table, leaves)
        except OSError as error:
            raise StaleCopy(f"{folder}: {error}") from error

    def invalidate(self) -> None:
        """From here on the copy stands for no point until `commit`."""
        (self.folder / "head").unlink(missing_ok=True)

    def commit(self, head: Head) -> None:
        """The copy now stands for the point in `head`; leaves and packs are saved, the head last."""
        leaves = _shrink_leaves(self.leaves, self.positions)
        packs = b"".join(self.packs.ids[i] or _ZERO_NODE for i in range(head.packs))
        document = json.dumps(asdict(head)).encode()
        _replace(self.folder / "leaves", leaves)
        _replace(self.folder / "packs", packs)
        _replace(self.folder / "head", document + b"\n" + _check_of(document, leaves, packs))

    def close(self) -> None:
        os.close(self._rows)
        os.close(self._nodes)
        os.close(self._places)

    def digest(self, *, size: int, chunk_size: int) -> str:
        return tree.disk_digest(self.leaves, size=size, chunk_size=chunk_size).hex()

    # -- reading ---------------------------------------------------------------------------------------------------

    def rows(self, first: int, count: int) -> Rows:
        """Entries as they stand in the file, a writable copy. Nothing is checked."""
        buffer = bytearray(count * _ROW)
        if os.preadv(self._rows, [buffer], first * _ROW) != len(buffer):
            raise StaleCopy(f"{self.folder}: rows end early")
        return np.frombuffer(buffer, ENTRY)

    def verified(self, first: int, count: int) -> Rows:
        """Entries whose ids are proved to belong to the digest. Raises StaleCopy."""
        if not count:
            return self.rows(first, 0)
        low = first // FAN_OUT * FAN_OUT
        high = min(-(-(first + count) // FAN_OUT) * FAN_OUT, self.positions)
        rows = self.rows(low, high - low)
        ids = ids_of(rows)
        nodes = self.nodes(low // FAN_OUT, -(-(high - low) // FAN_OUT))
        stride = FAN_OUT * ID_SIZE
        for i in range(0, len(ids), stride):
            if tree.node(ids[i : i + stride]) != nodes[i // FAN_OUT : i // FAN_OUT + ID_SIZE]:
                raise StaleCopy(f"{self.folder}: ids from position {low + i // ID_SIZE} do not give their node")
        checks = _checks_of(rows)
        if os.pread(self._places, len(checks), low // FAN_OUT * _CHECK) != checks:
            raise StaleCopy(f"{self.folder}: entries from position {low} do not give their check")
        for leaf in range(low // LEAF_POSITIONS, (high - 1) // LEAF_POSITIONS + 1):
            self._verify_leaf(leaf)
        return rows[first - low : first - low + count]

    def lookup(self, positions: Positions) -> Rows:
        """Entries of ascending positions, verified. Raises StaleCopy."""
        found = np.empty(len(positions), ENTRY)
        groups = positions // FAN_OUT
        # One read for groups side by side, but not beyond a leaf.
        cuts = (np.diff(groups) > 1) | (np.diff(positions // LEAF_POSITIONS) != 0)
        bounds = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(positions)]
        for start, end in pairwise(bounds):
            if start < end:
                first, last = int(groups[start]) * FAN_OUT, (int(groups[end - 1]) + 1) * FAN_OUT
                rows = self.verified(first, min(last, self.positions) - first)
                found[start:end] = rows[(positions[start:end] - first).astype(np.intp)]
        return found

    def nodes(self, first: int, count: int) -> bytes:
        """`count` nodes of level 1."""
        data = bytearray(os.pread(self._nodes, count * ID_SIZE, first * ID_SIZE))
        if len(data) != count * ID_SIZE:
            raise StaleCopy(f"{self.folder}: nodes end early")
        for i in range(count):
            if data[i * ID_SIZE : (i + 1) * ID_SIZE] == _ZERO_NODE:
                data[i * ID_SIZE : (i + 1) * ID_SIZE] = _zero_node(self._group_size(first + i))
        return bytes(data)

    def leaf_nodes(self, leaf: int) -> bytes:
        """The nodes of level 1 below a leaf, proved to belong to it."""
        self._verify_leaf(leaf)
        return self.nodes(leaf * FAN_OUT, -(-self.leaf_size(leaf) // FAN_OUT))

    def leaf(self, number: int) -> bytes:
        return bytes(self.leaves[number * ID_SIZE : (number + 1) * ID_SIZE])

    def leaf_size(self, leaf: int) -> int:
        """Positions below a leaf."""
        return min(LEAF_POSITIONS, self.positions - leaf * LEAF_POSITIONS)

    def nonzero_leaves(self) -> Iterator[int]:
        """Leaves with any chunk that is not zero."""
        return (leaf for leaf in range(len(self.leaves) // ID_SIZE) if not self.is_zero_leaf(leaf))

    def is_zero_leaf(self, leaf: int) -> bool:
        """Whether all chunks below a leaf are zero."""
        return self.leaf(leaf) == tree.zero_leaf(self.leaf_size(leaf))

    def _group_size(self, group: int) -> int:
        return min(FAN_OUT, self.positions - group * FAN_OUT)

    def _verify_leaf(self, leaf: int) -> None:
        if self._verified[leaf]:
            return
        nodes = self.nodes(leaf * FAN_OUT, -(-self.leaf_size(leaf) // FAN_OUT))
        if tree.node(nodes) != self.leaf(leaf):
            raise StaleCopy(f"{self.folder}: nodes do not give leaf {leaf}")
        self._verified[leaf] = 1

    # -- changing --------------------------------------------------------------------------------------------------

    def store(self, first: int, rows: Rows) -> None:
        """Write the entries of whole leaves: `first` is a multiple of 4,096 and `rows` ends at one, or at the end."""
        os.pwritev(self._rows, [rows.tobytes()], first * _ROW)
        os.pwritev(self._places, [_checks_of(rows)], first // FAN_OUT * _CHECK)
        ids = ids_of(rows)
        nodes = tree.level_up(ids)
        self._write_nodes(first // FAN_OUT, nodes)
        leaves = tree.level_up(nodes)
        at = first // LEAF_POSITIONS
        self.leaves[at * ID_SIZE : at * ID_SIZE + len(leaves)] = leaves
        self._verified[at : at + len(leaves) // ID_SIZE] = b"\1" * (len(leaves) // ID_SIZE)

    def put_rows(self, positions: Positions, rows: Rows) -> None:
        """Write entries at ascending positions and leave the tree alone: for a file that is only looked up."""
        bounds = [0, *(np.flatnonzero(np.diff(positions) != 1) + 1).tolist(), len(positions)]
        for start, end in pairwise(bounds):
            if start < end:
                os.pwritev(self._rows, [rows[start:end].tobytes()], int(positions[start]) * _ROW)

    def apply(self, positions: Positions, rows: Rows) -> None:
        """Change the entries of ascending positions, and the tree above them. What is read on the way is verified."""
        leaves = positions // LEAF_POSITIONS
        bounds = np.flatnonzero(np.diff(leaves)) + 1
        starts, ends = [0, *bounds.tolist()], [*bounds.tolist(), len(positions)]
        for start, end in zip(starts, ends, strict=True):
            if start < end:
                self._apply_leaf(int(leaves[start]), positions[start:end], rows[start:end])

    def _apply_leaf(self, leaf: int, positions: Positions, rows: Rows) -> None:
        first, size = leaf * LEAF_POSITIONS, self.leaf_size(leaf)
        if len(positions) * 16 >= size:
            all_rows = self.verified(first, size)
            all_rows[(positions - first).astype(np.intp)] = rows
            self.store(first, all_rows)
            return
        nodes = bytearray(self.leaf_nodes(leaf))
        groups = positions // FAN_OUT
        for group in np.unique(groups):
            number = int(group)
            group_rows = self.verified(number * FAN_OUT, self._group_size(number))
            at = groups == group
            group_rows[(positions[at] - number * FAN_OUT).astype(np.intp)] = rows[at]
            os.pwritev(self._rows, [group_rows.tobytes()], number * FAN_OUT * _ROW)
            os.pwritev(self._places, [_checks_of(group_rows)], number * _CHECK)
            node = tree.node(ids_of(group_rows))
            index = number - leaf * FAN_OUT
            nodes[index * ID_SIZE : (index + 1) * ID_SIZE] = node
            self._write_nodes(number, node)
        self.leaves[leaf * ID_SIZE : (leaf + 1) * ID_SIZE] = tree.node(nodes)

    def _write_nodes(self, first: int, nodes: bytes) -> None:
        data = bytearray(nodes)
        for i in range(len(nodes) // ID_SIZE):
            if data[i * ID_SIZE : (i + 1) * ID_SIZE] == _zero_node(self._group_size(first + i)):
                data[i * ID_SIZE : (i + 1) * ID_SIZE] = _ZERO_NODE
        os.pwritev(self._nodes, [data], first * ID_SIZE)


class TreeUpdate:
    """The digest of a parent with changes, computed as they come by in order; the parent's copy stays as it is."""

    def __init__(self, parent: IndexFile) -> None:
        self._parent = parent
        self._leaves = bytearray(parent.leaves)
        self._leaf = -1
        self._nodes = bytearray()

    def change(self, positions: Positions, rows: Rows) -> Rows:
        """Take the next ascending positions; returns the parent's (verified) entries there. Raises StaleCopy.

        Positions of one group of 64 may come in several calls.
        """
        old = np.empty(len(positions), ENTRY)
        groups = positions // FAN_OUT
        bounds = np.flatnonzero(np.diff(groups)) + 1
        for start, end in zip([0, *bounds.tolist()], [*bounds.tolist(), len(positions)], strict=True):
            if start < end:
                old[start:end] = self._change_group(int(groups[start]), positions[start:end], rows[start:end])
        return old

    def _change_group(self, group: int, positions: Positions, rows: Rows) -> Rows:
        parent, leaf = self._parent, group // FAN_OUT
        if leaf != self._leaf:
            self._finish_leaf()
            self._leaf, self._nodes, self._group = leaf, bytearray(parent.leaf_nodes(leaf)), -1
        if group != self._group:
            self._group = group
            self._rows = parent.verified(group * FAN_OUT, parent._group_size(group))
        at = (positions - group * FAN_OUT).astype(np.intp)
        old = self._rows[at].copy()
        self._rows[at] = rows
        index = group - leaf * FAN_OUT
        self._nodes[index * ID_SIZE : (index + 1) * ID_SIZE] = tree.node(ids_of(self._rows))
        return old

    def _finish_leaf(self) -> None:
        if self._leaf >= 0:
            self._leaves[self._leaf * ID_SIZE : (self._leaf + 1) * ID_SIZE] = tree.node(self._nodes)

    def digest(self, *, size: int, chunk_size: int) -> str:
        self._finish_leaf()
        return tree.disk_digest(self._leaves, size=size, chunk_size=chunk_size).hex()


@lru_cache(maxsize=64)
def _zero_node(positions: int) -> bytes:
    return tree.node(bytes(ID_SIZE * positions))


def _shrink_leaves(leaves: bytearray, positions: int) -> bytes:
    zeros = tree.zero_leaves(positions)
    mine, zero = (np.frombuffer(x, "<u8").reshape(-1, 4) for x in (bytes(leaves), zeros))
    return np.where((mine == zero).all(axis=1)[:, None], np.uint64(0), mine).tobytes()


def _expand_leaves(stored: bytes, positions: int) -> bytearray:
    zeros = tree.zero_leaves(positions)
    if len(stored) != len(zeros):
        return bytearray()
    mine, zero = (np.frombuffer(x, "<u8").reshape(-1, 4) for x in (stored, zeros))
    return bytearray(np.where((mine == 0).all(axis=1)[:, None], zero, mine).tobytes())


def _checks_of(rows: Rows) -> bytes:
    """A check for each 64 of `rows`, side by side."""
    data = memoryview(rows.tobytes())
    stride = FAN_OUT * _ROW
    return b"".join(_check_group(data[i : i + stride]) for i in range(0, len(data), stride))


def _check_group(data: memoryview) -> bytes:
    check = blake3(data).digest(_CHECK)
    return bytes(_CHECK) if check == _zero_check(len(data)) else check


@cache
def _zero_check(length: int) -> bytes:
    return blake3(bytes(length)).digest(_CHECK)


def _check_of(document: bytes, leaves: bytes, packs: bytes) -> bytes:
    """Check of the head: what it says, and what it is said of."""
    parts = b"".join(blake3(part).digest() for part in (document, leaves, packs))
    return blake3(parts).hexdigest().encode()


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
    temporary.replace(path)


def count_stored(rows: Rows) -> int:
    """Stored bytes of the entries."""
    return int(rows["length"][~is_zero(rows)].sum(dtype=np.int64))
