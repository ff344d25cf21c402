"""A workbench for transfers: disks made of chunks, a repository, and the two pipelines in one call each."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from manifests.entry import PackTable, ids_of
from manifests.machine import Machine
from manifests.manifest import Disk
from manifests.names import PointName, pack_key
from pipeline.catalogue import Point, resolve
from pipeline.exporters.base import Exporter, Extent
from pipeline.exporters.files import Unreadable
from pipeline.exporters.open import open_exporter
from pipeline.home.bring import bring_disks
from pipeline.home.control import Controller
from pipeline.home.ready import check_ready
from pipeline.home.site import Ground, open_site
from pipeline.keys.locks import KeyFile
from pipeline.mapping import Mapping
from pipeline.progress import Watch, ignore
from pipeline.repository import Repository
from pipeline.store.base import Bytes, Store
from pipeline.store.memory import MemoryStore
from pipeline.target import DiskRestored, Intent
from pipeline.transfer.export import ExportResult, export_machine
from pipeline.transfer.export_request import ChangedBlocks, DiskSource, ExportOptions
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.pack_lists import packs_of
from pipeline.verify.listing import verify_listing
from pipeline.verify.reading import verify_reading
from pipeline.verify.report import VerifyReport
from pipeline.wanted import resolve as resolve_mapping
from pipeline.writers.base import BlockWriter

CHUNK = 64 << 10
MIB = 1 << 20
UPLOADS = 2
"""Tests share few processors: small pools are enough to find races."""


def noise(length: int, seed: object) -> bytes:
    """Bytes that do not compress."""
    return random.Random(str(seed)).randbytes(length)


def text(length: int, seed: object) -> bytes:
    """Bytes that compress about four times."""
    words = [noise(16, f"{seed}/{i}").hex().encode() for i in range(max(length // 512, 1))]
    source = random.Random(str(seed))
    data = b"".join(source.choice(words) for _ in range(length // 32 + 1))
    return data[:length]


def make_disk(path: Path, size: int, parts: dict[int, bytes] | None = None) -> Path:
    """A sparse file with `parts` (offset: bytes) in it."""
    with path.open("wb") as file:
        for offset, data in (parts or {}).items():
            file.seek(offset)
            file.write(data)
        file.truncate(size)
    return path


def poke(path: Path, offset: int, data: bytes) -> None:
    """Write in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def punch(path: Path, offset: int, length: int) -> None:
    """Make a hole."""
    from pipeline.writers.linux import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate

    fd = os.open(path, os.O_RDWR)
    try:
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)
    finally:
        os.close(fd)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


class Workbench:
    """One repository, one state folder (the exporting host's), one folder for restored disks."""

    def __init__(
        self, root: Path, store: Store | None = None, *, chunk_size: int = CHUNK, encrypted: bool = True
    ) -> None:
        self.root = root
        self.store = store or MemoryStore()
        lock = KeyFile(root / "key") if encrypted else None
        self.repository = Repository.init(self.store, chunk_size=chunk_size, lock=lock)
        self.state = root / "state"
        self.out = root / "out"

    def through(self, store: Store) -> Workbench:
        """The same repository and folders, seen through another store (a layer around the same one)."""
        other = object.__new__(Workbench)
        other.__dict__ |= self.__dict__
        other.store = store
        other.repository = Repository(store, self.repository.document, self.repository.sealing)
        return other

    def elsewhere(self, name: str) -> Workbench:
        """The same repository from another host: nothing local is known."""
        other = object.__new__(Workbench)
        other.__dict__ |= self.__dict__
        other.state, other.out = self.root / name / "state", self.root / name / "out"
        return other

    def export(
        self,
        *disks: Path | Exporter,
        machine: str = "vm",
        hardware: Machine | None = None,
        changes: ChangedBlocks | None = None,
        watch: Watch = ignore,
        **options: Any,
    ) -> ExportResult:
        with ExitStack() as stack:
            sources = []
            for number, disk in enumerate(disks):
                exporter = disk if isinstance(disk, Exporter) else open_exporter(str(disk))
                if not isinstance(disk, Exporter):
                    stack.callback(exporter.close)
                sources.append(DiskSource(exporter, f"disk{number}", changes=changes))
            chosen = ExportOptions(state=self.state, uploads=UPLOADS, workers=2)
            return export_machine(
                self.repository, hardware or Machine(name=machine), sources, replace(chosen, **options), watch=watch
            )

    def point(self, sequence: int | None = None, machine: str = "vm") -> Point:
        return resolve(self.repository, PointName(machine, sequence))

    def restore(
        self,
        sequence: int | None = None,
        *,
        machine: str = "vm",
        out: Path | None = None,
        watch: Watch = ignore,
        image_format: str | None = None,
        devices: dict[int, str] | None = None,
        seeds: tuple[str, ...] = (),
        parallel: int = 2,
        dry_run: bool = False,
    ) -> list[DiskRestored]:
        """To files in `out`, or devices."""
        point = self.point(sequence, machine)
        disks = {number: {"device": text} for number, text in (devices or {}).items()}
        mapping = Mapping().said(format=image_format, disks=disks or None)
        wanted = resolve_mapping(mapping, point.manifest, "files")
        ground = Ground(
            self.repository,
            self.state,
            Controller(watch=watch),
            parallel=parallel,
            out=out or self.out,
            seeds=seeds,
        )
        with open_site(ground, "files", machine, "import") as site:
            if not dry_run:
                return list(bring_disks(site, point, wanted).disks)
            check_ready(site, point, wanted, Intent("production", boots=False))
            return site.importer.forecast(None, point, wanted)

    def restored(self, number: int = 0, *, machine: str = "vm", image_format: str = "raw") -> Path:
        return self.out / f"{machine}-disk{number}.{image_format}"

    def disk(self, sequence: int | None = None, number: int = 0, machine: str = "vm") -> Disk:
        return self.point(sequence, machine).manifest.disks[number]

    def index(self, sequence: int | None = None, number: int = 0) -> dict[int, tuple[bytes, bytes, int, int]]:
        """position -> (chunk id, pack id, offset, stored length), by the plainest walk."""
        packs = PackTable()
        found = {}
        for positions, rows in IndexReader(self.repository, self.disk(sequence, number), packs).windows():
            ids = ids_of(rows)
            for i, position in enumerate(positions.tolist()):
                row = rows[i]
                pack = packs.ids[int(row["pack"])]
                found[position] = (ids[32 * i : 32 * i + 32], pack, int(row["offset"]), int(row["length"]))
        return found

    def verified(self, sequence: int | None = None) -> None:
        """Listing and reading find nothing wrong."""
        point = self.point(sequence)
        for report in (verify_listing(self.repository, point), verify_reading(self.repository, point, parallel=2)):
            assert_clean(report)

    def check_pack_lists(self, sequence: int | None = None, number: int = 0) -> None:
        """The pack lists name every pack of the index, with the right stored length and live bytes."""
        live: dict[bytes, int] = {}
        for _chunk, pack, _offset, length in self.index(sequence, number).values():
            live[pack] = live.get(pack, 0) + length
        listed = packs_of(self.repository, self.disk(sequence, number))
        assert {pack: use.live for pack, use in listed.items() if use.live} == live
        for pack, use in listed.items():
            info = self.store.head(pack_key(pack))
            assert info is not None
            assert use.stored == info.size, pack.hex()
        disk = self.disk(sequence, number)
        assert disk.live_bytes == sum(live.values())
        assert disk.data_bytes == len(self.index(sequence, number)) * disk.chunk_size


def assert_clean(report: VerifyReport) -> None:
    assert report.ok, (report.problems, report.ranges)


def same(left: Path, right: Path) -> bool:
    return left.read_bytes() == right.read_bytes()


class FakeDisk(Exporter):
    """A disk of any size that holds a few chunks, may have bad sectors, and may change while it is read."""

    def __init__(
        self,
        size: int,
        parts: dict[int, bytes] | None = None,
        *,
        bad: list[tuple[int, int]] | None = None,
        identity: str | None = None,
        on_read: Callable[[int, int], None] | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        self.name = "fake"
        self.size = size
        self.sector_size = 512
        self.identity = identity
        self.parts = dict(parts or {})
        self.bad = bad or []
        self.on_read = on_read
        self.check = check
        self.read = 0

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        at = start
        areas = sorted([*((o, o + len(d)) for o, d in self.parts.items()), *((o, o + n) for o, n in self.bad)])
        for first, last in areas:
            first, last = max(first, at), min(last, end)
            if first >= last:
                continue
            if first > at:
                yield Extent(at, first - at, True)
            yield Extent(first, last - first, False)
            at = last
        if at < end:
            yield Extent(at, end - at, True)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        length = len(buffer)
        if self.on_read:
            self.on_read(offset, length)
        for start, count in self.bad:
            low, high = max(start, offset), min(start + count, offset + length)
            if low < high:
                raise Unreadable(f"{self.name}: cannot read {high - low} at {low}", offset=low, length=high - low)
        buffer[:] = bytes(length)
        for start, data in self.parts.items():
            low, high = max(start, offset), min(start + len(data), offset + length)
            if low < high:
                buffer[low - offset : high - offset] = data[low - start : high - start]
        self.read += length

    def check_unchanged(self) -> None:
        if self.check:
            self.check()

    def close(self) -> None:
        pass


class FakeTarget(BlockWriter):
    """A new disk of any size, kept in memory by blocks of 4 KiB."""

    def __init__(self, size: int) -> None:
        self.name, self.size, self.fresh = "target", size, True
        self.blocks: dict[int, bytearray] = {}
        self._lock = threading.Lock()

    def write(self, offset: int, buffers: Sequence[Bytes]) -> None:
        with self._lock:
            for buffer in buffers:
                data = bytes(buffer)
                while data:
                    number, at = divmod(offset, 4096)
                    part, data = data[: 4096 - at], data[4096 - at :]
                    self.blocks.setdefault(number, bytearray(4096))[at : at + len(part)] = part
                    offset += len(part)

    def discard(self, offset: int, length: int) -> None:
        for extent in list(self.extents(offset, offset + length)):
            if not extent.zero:
                self.write(extent.offset, [bytes(extent.length)])

    def flush(self) -> None:
        pass

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        at = start
        for number in sorted(self.blocks):
            first, last = max(number * 4096, at), min((number + 1) * 4096, end)
            if first >= last:
                continue
            if first > at:
                yield Extent(at, first - at, True)
            yield Extent(first, last - first, False)
            at = last
        if at < end:
            yield Extent(at, end - at, True)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            number, at = divmod(offset + done, 4096)
            part = self.blocks.get(number, bytes(4096))[at : at + len(buffer) - done]
            buffer[done : done + len(part)] = part
            done += len(part)

    def guard(self) -> str:
        return "alone"

    def close(self) -> None:
        pass
