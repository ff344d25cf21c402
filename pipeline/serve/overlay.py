"""What the guest wrote: blocks of 4 KiB that hide those of the recovery point. See the package for its folder."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from manifests.manifest import Disk, Manifest
from pipeline.errors import TargetError, TargetFull, TargetMismatch
from pipeline.exporters.base import Extent
from pipeline.serve.blockmap import BlockMap
from pipeline.store.base import Bytes
from pipeline.writers.raw import create_raw, open_raw

BLOCK = 4096
"""Bytes that the guest's file systems write at least. Smaller writes are completed from the recovery point."""
FORMAT = 1

ReadBase = Callable[[int, memoryview], None]
"""Fill a buffer from an offset with what the recovery point holds there."""


@dataclass(frozen=True, slots=True)
class OverlayHead:
    """The content of `head.json`: which disk the blocks belong to."""

    format: int
    repository: str
    machine: str
    sequence: int
    number: int
    digest: str
    size: int
    block: int

    @classmethod
    def of(cls, repository: str, manifest: Manifest, disk: Disk) -> Self:
        return cls(
            FORMAT,
            repository,
            manifest.machine.name,
            manifest.sequence,
            disk.number,
            disk.digest,
            disk.size,
            BLOCK,
        )

    @property
    def label(self) -> str:
        return f"{self.machine}@{self.sequence} disk {self.number}"


class Overlay:
    """Open overlay; one process at a time (whoever opens it holds the lock of the state folder).

    Reads and writes are safe from many threads. A write that has returned survives the death of this process, one
    before a `flush` that has returned survives the machine's.
    """

    def __init__(self, folder: Path, head: OverlayHead) -> None:
        """Made by `open_overlay`."""
        self.head = head
        self.size = head.size
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._broken: TargetError | None = None
        with _explained(folder):
            self._data = open_raw(str(folder / "data"), head.size)
            try:
                self._map = BlockMap(folder, -(-head.size // BLOCK))
            except BaseException:
                self._data.close()
                raise
        self.folder = folder

    def runs(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """(start, end, written) in bytes, covering [start, end) in order."""
        for first, stop, written in self._map.bits.runs(start // BLOCK, -(-end // BLOCK)):
            yield max(first * BLOCK, start), min(stop * BLOCK, end), written

    def untouched(self, start: int, end: int) -> bool:
        """Whether nothing was written in the range."""
        return not self._map.bits.any(start // BLOCK, -(-end // BLOCK))

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        """The zeros in a range that is written."""
        return self._data.extents(start, end)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Of a range that is written."""
        self._data.read_into(offset, buffer)

    def write(self, offset: int, data: Bytes, read_base: ReadBase) -> None:
        """Raises TargetFull, TargetError, and whatever `read_base` raises; it is asked for blocks written in part."""
        length = memoryview(data).nbytes
        if not length:
            return
        edges = self._edges(offset, offset + length, read_base)
        first, end = offset // BLOCK, -(-(offset + length) // BLOCK)
        with self._lock:
            for at, base in edges.items():
                if not self._map.bits.any(at // BLOCK, at // BLOCK + 1):
                    self._data.write(at, [base])
            self._data.write(offset, [data])
            self._note(first, end)

    def zero(self, offset: int, length: int, read_base: ReadBase) -> None:
        """The range reads as zeros, and takes no space where that can be had. Raises as `write` does."""
        if not length:
            return
        edges = self._edges(offset, offset + length, read_base)
        first, end = offset // BLOCK, -(-(offset + length) // BLOCK)
        with self._lock:
            for at, base in edges.items():
                if not self._map.bits.any(at // BLOCK, at // BLOCK + 1):
                    self._data.write(at, [base])
            self._data.discard(offset, length)
            self._note(first, end)

    def flush(self) -> None:
        """Every write that returned before is on stable storage. Raises TargetError, from then on always."""
        with self._flushing:
            if self._broken is not None:
                raise self._broken
            with self._lock:
                changes = self._map.changes()
            try:
                self._data.flush()
                with _explained(self.folder):
                    self._map.store(changes)
            except TargetError as error:
                # The kernel may have dropped what it could not store: a later success would be a lie.
                self._broken = error
                raise

    def close(self) -> None:
        """Release the files. Does not flush."""
        self._data.close()
        self._map.close()

    def _edges(self, start: int, end: int, read_base: ReadBase) -> dict[int, bytearray]:
        """What the recovery point holds in the blocks that [start, end) covers in part and the guest never wrote.

        Read without the lock, because it may have to be fetched: what the point holds does not change.
        """
        wanted = set()
        if start % BLOCK:
            wanted.add(start // BLOCK * BLOCK)
        if end % BLOCK and end < self.size:
            wanted.add(end // BLOCK * BLOCK)
        found = {}
        for at in wanted:
            if self.untouched(at, at + 1):
                found[at] = bytearray(min(BLOCK, self.size - at))
                read_base(at, memoryview(found[at]))
        return found

    def _note(self, first: int, end: int) -> None:
        with _explained(self.folder):
            self._map.mark(first, end)


def open_overlay(state: Path, wanted: OverlayHead) -> Overlay:
    """The overlay in a state folder, a new one when there is none. The caller holds the folder's lock.

    Raises TargetMismatch when the one that is there belongs to another disk or point.
    """
    head = read_head(state)
    if head is None:
        with _explained(state):
            _create(state, wanted)
        head = wanted
    if head != wanted:
        raise TargetMismatch(
            f"{state} holds what a guest wrote on {head.label}, not on {wanted.label}",
            remedy=f"serve {head.machine}@{head.sequence}, or drop what was written with `failback serve … --drop`",
        )
    return Overlay(state / "overlay", head)


def read_head(state: Path) -> OverlayHead | None:
    """What the overlay in a state folder belongs to; None when there is none. Raises TargetMismatch, TargetError."""
    path = state / "overlay" / "head.json"
    try:
        head = OverlayHead(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TargetError(f"cannot read {path}: {error.strerror}", remedy="check its rights") from error
    except (ValueError, TypeError):
        head = None
    kinds = {f.name: int if f.type == "int" else str for f in fields(OverlayHead)}
    if head is None or not all(isinstance(v, kinds[k]) for k, v in asdict(head).items()):
        raise TargetMismatch(f"{path} is damaged", remedy="name another state folder; what the guest wrote stays there")
    if head.format != FORMAT or head.block != BLOCK:
        raise TargetMismatch(f"{path} was written by another version of failback", remedy="use that version")
    return head


def mark_merging(state: Path) -> None:
    """From now on the overlay can only be merged: a disk begins to hold some of it. Durable when it returns."""
    with _explained(state):
        (state / "overlay" / "merging").touch()
        sync_folder(state / "overlay")


def remove_overlay(state: Path) -> None:
    """Forget what the guest wrote, at one stroke. The caller holds the folder's lock and no overlay is open."""
    with _explained(state):
        old = state / "overlay.old"
        shutil.rmtree(old, ignore_errors=True)
        try:
            (state / "overlay").rename(old)
        except FileNotFoundError:
            return
        sync_folder(state)
        shutil.rmtree(old)


def _create(state: Path, head: OverlayHead) -> None:
    """It is there whole or not at all: made under another name."""
    for name in ("overlay.new", "overlay.old"):
        shutil.rmtree(state / name, ignore_errors=True)
    folder = state / "overlay.new"
    folder.mkdir(mode=0o700)
    data = create_raw(str(folder / "data"), head.size)
    try:
        data.flush()
    finally:
        data.close()
    BlockMap.create(folder, -(-head.size // BLOCK))
    with (folder / "head.json").open("xb") as file:
        file.write(json.dumps(asdict(head), indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    folder.rename(state / "overlay")
    sync_folder(state)


def sync_folder(path: Path) -> None:
    """Entries of a folder are on stable storage when it returns. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _explained:
    """Say what it means when the state folder cannot be used. Writers raise errors of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TargetFull(
                f"no room left in {self._folder} for what the guest writes", remedy="make room there"
            ) from error
        raise TargetError(
            f"cannot use {self._folder}: {error.strerror}", remedy="check that the folder can be written"
        ) from error
