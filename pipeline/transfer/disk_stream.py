"""A disk of a recovery point as one VMDK stream, made while it is sent.

Chunks are fetched and packed by several threads ahead of the reader, their ids checked before they leave; nothing is
spooled. Verified with `qemu-img`; what was never tried on ESXi is told in `pipeline.writers.vmdk_stream`. A stream
without a known length needs chunked transfer, which is unverified there too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from blake3 import blake3

from manifests.manifest import Disk
from manifests.sealing import Buffer
from pipeline.catalogue import Point
from pipeline.progress import Counters, Watch, ignore
from pipeline.repository import Repository
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.ordered import OrderedChunks
from pipeline.writers.vmdk_grain import STORED, Compress, Pieces, compressed, compressor, length_of, stored
from pipeline.writers.vmdk_stream import GRAIN, TABLE_GRAINS, Adapter, Shape, StreamEncoder, check_length

_BLOCK = 1 << 20
_ZEROS = bytes(GRAIN)
Packed = list[tuple[int, Pieces]]
"""Grains of one chunk, by number."""


class _Hash(Protocol):
    def update(self, data: Buffer, /) -> object: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a disk is streamed. `level`: 0 is stored, with a length known beforehand; 1 to 9 as zlib's."""

    level: int = 0
    adapter: Adapter = "lsilogic"
    parallel: int = 4
    memory: int = 64 << 20
    """Bytes held ahead of the reader. For several streams side by side: a share for each, 24 MiB at least."""
    digests: tuple[str, ...] = ("sha1",)
    """Of the stream: names that hashlib knows, or blake3."""


class DiskStream:
    """Blocks of about 1 MiB, from the beginning each time it is iterated, by one thread at a time; several streams may
    run side by side. Close the iterator to stop early (`contextlib.closing`); `watch` may raise to the same end.

    Raises CorruptObject (names disk and range), StoreError, Unsupported (2 TiB).
    """

    def __init__(
        self, repository: Repository, point: Point, disk: Disk, options: StreamOptions, *, watch: Watch = ignore
    ) -> None:
        self._repository = repository
        self._disk = disk
        self._options = options
        self._watch = watch
        self._shape = Shape(disk.size)
        self.name = f"{point.manifest.label} disk {disk.number}"
        self.length = None if options.level else stored_length(repository, disk)
        """Bytes of the whole stream; None when only its end will tell."""
        self.counters = self._counters()
        self._digests: dict[str, str] | None = None

    def _counters(self) -> Counters:
        return Counters(phase="stream", disk=self.name, total=self._disk.size)

    def __iter__(self) -> Generator[bytes]:
        self._digests = None
        self.counters = self._counters()
        hashing = _Hashing(self._options.digests)
        try:
            for block in self._blocks():
                hashing.take(block)
                self.counters.sent += len(block)
                yield block
                self._watch(self.counters)
            if self.length not in (None, self.counters.sent):
                raise AssertionError(f"a stream of {self.length} bytes had {self.counters.sent}")
            self._digests = hashing.done()
        finally:
            hashing.close()

    def digest(self, name: str = "sha1") -> str:
        """Of the whole stream, in hex, after it was iterated to its end."""
        if self._digests is None:
            raise RuntimeError(f"{self.name}: the stream was not read to its end")
        return self._digests[name]

    def _blocks(self) -> Iterator[bytes]:
        pending: list[Buffer] = []
        length = 0
        for piece in self._pieces():
            pending.append(piece)
            length += len(piece)
            if length >= _BLOCK:
                yield b"".join(pending)
                pending, length = [], 0
        yield b"".join(pending)

    def _pieces(self) -> Iterator[Buffer]:
        disk, counters = self._disk, self.counters
        encoder = StreamEncoder(
            self._shape,
            name=f"disk{disk.number}.vmdk",
            cid=int(disk.digest[:8], 16) & 0x7FFFFFFF,  # 0xffffffff and 0xfffffffe say something else
            adapter=self._options.adapter,
        )
        chunks = OrderedChunks(
            self._repository,
            disk,
            _Packer(disk, self._options.level),
            name=self.name,
            parallel=self._options.parallel,
            memory=self._options.memory,
        )
        yield encoder.front()
        for position, grains in chunks:
            counters.done = min(position * disk.chunk_size, disk.size)
            counters.read = chunks.fetched
            counters.written += disk.chunk_size
            for number, pieces in grains:
                yield encoder.place(number, length_of(pieces))
                yield from pieces
        counters.done = disk.size
        yield encoder.end()


def stored_length(repository: Repository, disk: Disk) -> int:
    """Bytes of the disk's stream at level 0, from its index alone. Raises Unsupported when it cannot be."""
    shape, grains, tables, last = Shape(disk.size), 0, 0, -1
    each = disk.chunk_size // GRAIN
    for positions, _rows in IndexReader(repository, disk).windows():
        grains += len(positions) * each
        if positions[-1] == disk.positions - 1:
            grains -= disk.positions * each - shape.grains  # those of the last chunk that are beyond the disk
        used = np.unique(positions * np.uint64(each) // np.uint64(TABLE_GRAINS))
        tables += len(used) - int(used[0] == last)
        last = int(used[-1])
    length = shape.length(grains * STORED, tables)
    check_length(length)
    return length


class _Packer:
    """Chunks become grains."""

    def __init__(self, disk: Disk, level: int) -> None:
        self._each = disk.chunk_size // GRAIN
        self._grains = Shape(disk.size).grains
        self._compress: Compress | None = compressor(level) if level else None

    def __call__(self, position: int, plain: Buffer) -> Packed:
        first = position * self._each
        view = memoryview(plain)
        packed: Packed = []
        for i in range(min(self._each, self._grains - first)):
            part = view[i * GRAIN : (i + 1) * GRAIN]
            if self._compress is None:
                packed.append((first + i, stored(first + i, part)))
            elif self._each == 1 or part.tobytes() != _ZEROS:  # a chunk that is not zero may hold grains that are
                packed.append((first + i, compressed(first + i, part, self._compress)))
        return packed


class _Hashing:
    """Digests of what goes by, taken by a thread of its own while the block is sent."""

    def __init__(self, names: Sequence[str]) -> None:
        self._hashes: dict[str, _Hash] = {name: blake3() if name == "blake3" else hashlib.new(name) for name in names}
        self._pool = ThreadPoolExecutor(1, "digest")
        self._last: Future[None] | None = None

    def take(self, block: bytes) -> None:
        if self._last is not None:
            self._last.result()
        self._last = self._pool.submit(self._update, block)

    def _update(self, block: bytes) -> None:
        for one in self._hashes.values():
            one.update(block)

    def done(self) -> dict[str, str]:
        if self._last is not None:
            self._last.result()
        return {name: one.hexdigest() for name, one in self._hashes.items()}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
