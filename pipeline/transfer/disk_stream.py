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

from blake3 import blake3

from manifests.manifest import Disk
from manifests.sealing import Buffer
from pipeline.catalogue import Point
from pipeline.errors import LengthExceeded, TargetMismatch
from pipeline.progress import Counters, Watch, ignore
from pipeline.repository import Repository
from pipeline.transfer.ordered import OrderedChunks
from pipeline.transfer.packer import Packer
from pipeline.transfer.stream_length import Extent, announced, extent_of
from pipeline.writers.vmdk_grain import STORED, Pieces, length_of, stretched
from pipeline.writers.vmdk_stream import SECTOR, Adapter, Shape, StreamEncoder, check_length

_BLOCK = 1 << 20


class _Hash(Protocol):
    def update(self, data: Buffer, /) -> object: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a disk is streamed. `level`: 0 is stored, with a length known beforehand; 1 to 9 as zlib's."""

    level: int = 0
    announce: bool = False
    """A length known beforehand also with a level: a sample of the disk is fetched for it (SAMPLE chunks, a request
    each), and the stream is some percent longer than it had to be."""
    adapter: Adapter = "lsilogic"
    capacity: int = 0
    """Bytes of the target's disk, where it is larger than the point's: what is beyond is zero. 0: as the point's."""
    parallel: int = 4
    memory: int = 48 << 20
    """Bytes held ahead of the reader. For several streams side by side: a share for each, 24 MiB at least."""
    digests: tuple[str, ...] = ("sha1",)
    """Of the stream: names that hashlib knows, or blake3."""


class DiskStream:
    """Blocks of about 1 MiB, from the beginning each time it is iterated, by one thread at a time; several streams may
    run side by side. Made, it has read the index where a length is wanted, and fetched the sample for `announce`. Close
    the iterator to stop early (`contextlib.closing`); `watch` may raise to the same end.

    Raises CorruptObject (names disk and range), StoreError, Unsupported (2 TiB), and LengthExceeded while a stream is
    read whose announced length does not suffice: rare, since four standard errors of the sample's estimate are added,
    and then the disk has to be sent again, stored.
    """

    def __init__(
        self, repository: Repository, point: Point, disk: Disk, options: StreamOptions, *, watch: Watch = ignore
    ) -> None:
        self._repository = repository
        self._disk = disk
        self._options = options
        self._watch = watch
        self.name = f"{point.manifest.label} disk {disk.number}"
        if 0 < options.capacity < disk.size:
            raise TargetMismatch(
                f"{self.name} has {disk.size} bytes, its target {options.capacity}", remedy="make the target larger"
            )
        self._shape = Shape(options.capacity or disk.size)
        self._packer = Packer(disk, options.level, all_grains=options.announce or not options.level)
        self._grains: tuple[int, int] | None = None
        """How many there are, and the bytes that all of them take."""
        self.length: int | None = None
        """Bytes of the whole stream; None when only its end will tell."""
        if options.announce or not options.level:
            extent = extent_of(repository, disk)
            self._grains = extent.grains, self._length_of_all(extent)
            self.length = self._shape.length(self._grains[1], extent.tables)
            check_length(self.length)
        self.counters = self._counters()
        self._digests: dict[str, str] | None = None

    def _length_of_all(self, extent: Extent) -> int:
        if not self._options.level:
            return extent.grains * STORED
        parallel = self._options.parallel
        return announced(self._repository, self._disk, extent, self._packer, name=self.name, parallel=parallel)

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
            self._packer,
            name=self.name,
            parallel=self._options.parallel,
            memory=self._options.memory,
        )
        room = _Room(self.name, *self._grains) if self._grains else None
        yield encoder.front()
        for position, grains in chunks:
            counters.done = min(position * disk.chunk_size, disk.size)
            counters.read = chunks.fetched
            counters.written += disk.chunk_size
            for number, pieces in grains:
                if room is not None:
                    pieces = room.fill(pieces)
                yield encoder.place(number, length_of(pieces))
                yield from pieces
        counters.done = disk.size
        yield encoder.end()


class _Room:
    """What was announced for the grains that are still to come: all of it is used, and no more."""

    def __init__(self, name: str, grains: int, length: int) -> None:
        self._name, self._grains, self._length = name, grains, length

    def fill(self, pieces: Pieces) -> Pieces:
        """The next grain, stretched where even stored grains would not fill the room behind it.

        Raises LengthExceeded when the room does not suffice."""
        self._grains -= 1
        length = length_of(pieces)
        if length + self._grains * SECTOR > self._length:
            raise LengthExceeded(
                f"{self._name} compresses less than its sample: it does not fit into the length that was announced",
                remedy="send it stored (level 0), or without a length",
            )
        wanted = max(length, self._length - self._grains * STORED)
        self._length -= wanted
        return pieces if wanted == length else stretched(pieces, wanted)


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
