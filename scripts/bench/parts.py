"""Parts: what no restore can do without, each measured by itself in one thread: CPU seconds, the least of some times.

What the interpreter adds to each call is measured with nothing to do and taken off: a program in another language would
not have it. Nothing is measured that a better program could leave out: no requests for the index, no copies.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import repeat, starmap
from pathlib import Path
from typing import Any

import numpy as np
import obstore
from obstore.store import S3Store

from manifests.entry import FLAG_STORED, ID_SIZE, PackTable, ids_of
from manifests.manifest import Disk
from manifests.names import PointName, pack_key
from manifests.pack import PackBuilder
from manifests.sealing import TAG_SIZE, ObjectKey, Sealing
from pipeline.catalogue import resolve
from pipeline.cli.invocation import Common, Invocation
from pipeline.repository import Repository
from pipeline.transfer.fetch import by_pack
from pipeline.transfer.index_reader import IndexReader
from scripts.bench.discard import Discard
from scripts.bench.extents import BLOCK
from scripts.bench.files import settle
from scripts.bench.least import Parts
from scripts.bench.peers.failback import MACHINE
from scripts.bench.server import BUCKET, KEY, SECRET, cpu_seconds
from scripts.bench.step import Mismatch
from scripts.bench.touch import touch_free_memory
from scripts.bench.ways import Way, Zstd, other_ways

REPOSITORY, OTHER = "disks", "other"
"""Prefixes in the bucket: what was exported, and the same chunks stored in another way."""
WRITE = 1 << 20
"""Bytes written with one call."""


@dataclass(frozen=True)
class Chunk:
    """Where a chunk is in its pack, and on the disk."""

    slot: int
    offset: int
    length: int
    stored: bool
    id: bytes
    positions: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Pack:
    """An object in the bucket and the chunks in it."""

    key: str
    chunks: list[Chunk]


@dataclass(frozen=True)
class Server:
    """The one that has the packs, by its port and the number of its process."""

    port: int
    process: int

    @property
    def bucket(self) -> S3Store:
        return S3Store(
            BUCKET,
            endpoint=f"http://127.0.0.1:{self.port}",
            access_key_id=KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True},
        )


def measure(server: Server, place: Path, *, repeats: int) -> list[Parts]:
    """The exported disk first, then the same chunks in other ways. Files are written to `place`.

    Settings come from the environment, as for every command. Raises Mismatch when what was restored is not the disk.
    """
    invocation = Invocation("floor", Common(quiet=True))
    with invocation.stack:
        repository = invocation.open_repository()
        disk = resolve(repository, PointName(MACHINE, None)).manifest.disks[0]
        packs = _packs(repository, disk)
        exported = Zstd(1)
        pieces = list(_to_write(repository.sealing, server.bucket, packs, exported, disk))
        write = min(_write(place, pieces, disk.size) for _ in range(repeats))
        written = sum(length for _, length in pieces)
        found = [_measure(repository.sealing, server, packs, exported, repeats, write=write, written=written)]
        known = {"write": write, "written": written, "hash_": found[0].hash}
        for way in other_ways(disk.chunk_size):
            other = list(_store(repository.sealing, server.bucket, packs, exported, way, disk))
            found.append(_measure(repository.sealing, server, other, way, repeats, **known))
            obstore.delete(server.bucket, [pack.key for pack in other])
    return found


def _packs(repository: Repository, disk: Disk) -> list[Pack]:
    """In disk order, each stored chunk once."""
    table = PackTable()
    found: dict[int, dict[int, Chunk]] = {}
    for positions, rows in IndexReader(repository, disk, table).windows():
        for job in by_pack(positions, rows):
            chunks = found.setdefault(job.pack, {})
            ids = ids_of(job.rows)
            columns = (job.rows[name].tolist() for name in ("slot", "offset", "length", "flags"))
            for i, (slot, offset, length, flags) in enumerate(zip(*columns, strict=True)):
                chunk_id = ids[i * ID_SIZE : (i + 1) * ID_SIZE]
                chunk = chunks.setdefault(offset, Chunk(slot, offset, length, bool(flags & FLAG_STORED), chunk_id))
                chunk.positions.append(int(job.positions[i]))
    return [Pack(f"{REPOSITORY}/{pack_key(table.ids[pack])}", list(chunks.values())) for pack, chunks in found.items()]


def _measure(
    sealing: Sealing,
    server: Server,
    packs: list[Pack],
    way: Way,
    repeats: int,
    *,
    write: float,
    written: int,
    hash_: float | None = None,
) -> Parts:
    """`hash_`: seconds, the same for all ways, where they are known; chunks are then compared once only."""
    served, taken = [], []
    for number in range(repeats):
        served.append(_serve(server, packs))
        taken.append(_open_decode_hash(sealing, server.bucket, packs, way, hashed=hash_ is None or number == 0))
    serve, receive = (min(figures) for figures in zip(*served, strict=True))
    opened, decode = min(figures[0] for figures in taken), min(figures[1] for figures in taken)
    stored = sum(chunk.length for pack in packs for chunk in pack.chunks)
    if hash_ is None:
        hash_ = min(figures[2] for figures in taken)
    print(f"measured: {way.name}, {len(packs)} packs with {stored / 1e6:,.0f} MB", flush=True)
    return Parts(way.name, stored, written, serve, receive, opened, decode, hash_, write)


def _serve(server: Server, packs: list[Pack]) -> tuple[float, float]:
    """CPU seconds of the server, and of a client that throws away what comes."""
    addresses = obstore.sign(server.bucket, "GET", [pack.key for pack in packs], timedelta(hours=1))
    paths = [address.partition(f":{server.port}")[2] for address in addresses]
    with Discard(server.port) as discard:
        before, begin = cpu_seconds(server.process), time.thread_time()
        for path in paths:
            discard.get(path)
        received = time.thread_time() - begin
        return cpu_seconds(server.process) - before, received


def _open_decode_hash(
    sealing: Sealing, bucket: S3Store, packs: list[Pack], way: Way, *, hashed: bool
) -> tuple[float, float, float]:
    chunk_id = sealing.chunk_hasher()
    opening, decoding, hashing = _Clock(), _Clock(), _Clock()
    for pack, key, sealed in _fetched(sealing, bucket, packs):
        opener = partial(key.open_chunk_into, name=pack.key)
        room = memoryview(bytearray(os.urandom(max(map(len, sealed)))))
        calls = [(chunk.slot, part, chunk.id, room) for chunk, part in zip(pack.chunks, sealed, strict=True)]
        opening.all(opener, calls)
        frames = [bytes(opener(*call)) for call in calls]
        packed = [frame for chunk, frame in zip(pack.chunks, frames, strict=True) if not chunk.stored]
        decoding.all(way.decode, zip(packed))
        if not hashed:
            continue
        plain = [_plain(way, chunk, frame) for chunk, frame in zip(pack.chunks, frames, strict=True)]
        if hashing.all(chunk_id, zip(plain), keep=True) != [chunk.id for chunk in pack.chunks]:
            raise Mismatch(f"{pack.key}: chunks that were stored as {way.name} are not what they were")
    none = memoryview(bytearray(TAG_SIZE))
    empty_key = ObjectKey(os.urandom(32), os.urandom(128))
    empty_key.seal_chunk_into(0, b"", bytes(ID_SIZE), none)
    opener = partial(empty_key.open_chunk_into, name="")
    return (
        opening.net(opener, 0, none, bytes(ID_SIZE), memoryview(bytearray(TAG_SIZE))),
        decoding.net(way.decode, way.encode(b"")),
        hashing.net(chunk_id, b""),
    )


def _write(place: Path, pieces: list[tuple[int, int]], size: int) -> float:
    """CPU seconds of writing to a new file, always the same bytes out of a core's own cache."""
    source = memoryview(os.urandom(WRITE))
    calls = [
        (source[: min(WRITE, offset + length - at)], at)
        for offset, length in pieces
        for at in range(offset, offset + length, WRITE)
    ]
    settle(place)
    touch_free_memory(size)
    path = place / "written"
    with open(path, "wb") as file:
        file.truncate(size)
        writing = _Clock()
        try:
            writing.all(partial(os.pwrite, file.fileno()), calls)
            return writing.net(partial(os.pwrite, file.fileno()), source[:0], 0)
        finally:
            path.unlink()


def _to_write(sealing: Sealing, bucket: S3Store, packs: list[Pack], way: Way, disk: Disk) -> Iterator[tuple[int, int]]:
    """Offsets and lengths of all that is not zeros, in disk order where packs are, adjacent pieces of one chunk and its
    neighbours joined."""
    start = end = 0
    for chunk, plain in _plain_chunks(sealing, bucket, packs, way):
        for position in chunk.positions:
            at = position * disk.chunk_size
            there = np.frombuffer(plain, np.uint8).reshape(-1, BLOCK).any(axis=1)
            for block in np.flatnonzero(there).tolist():
                offset = at + block * BLOCK
                length = min(BLOCK, disk.size - offset)
                if offset != end:
                    if end > start:
                        yield start, end - start
                    start = offset
                end = offset + length
    if end > start:
        yield start, end - start


def _store(sealing: Sealing, bucket: S3Store, packs: list[Pack], exported: Way, way: Way, disk: Disk) -> Iterator[Pack]:
    """The chunks in new packs, compressed in another way and sealed as ever."""

    def put(builder: PackBuilder, chunks: list[Chunk]) -> Pack:
        name, data = builder.seal()
        key = f"{OTHER}/{name.hex()}"
        obstore.put(bucket, key, data, use_multipart=False)
        return Pack(key, chunks)

    builder, chunks = PackBuilder(bytes(16), disk.chunk_size, sealing), list[Chunk]()
    for chunk, plain in _plain_chunks(sealing, bucket, packs, exported):
        packed = way.encode(plain)
        stored = len(packed) >= len(plain)
        flags = FLAG_STORED if stored else 0
        place = builder.add(chunk.positions[0], chunk.id, plain if stored else packed, flags)
        chunks.append(Chunk(*place, stored, chunk.id, chunk.positions))
        if builder.full:
            yield put(builder, chunks)
            builder, chunks = PackBuilder(bytes(16), disk.chunk_size, sealing), []
    if chunks:
        yield put(builder, chunks)


def _plain_chunks(sealing: Sealing, bucket: S3Store, packs: list[Pack], way: Way) -> Iterator[tuple[Chunk, bytes]]:
    for pack, key, sealed in _fetched(sealing, bucket, packs):
        for chunk, part in zip(pack.chunks, sealed, strict=True):
            yield chunk, _plain(way, chunk, key.open(chunk.slot, part, chunk=chunk.id, name=pack.key))


def _fetched(
    sealing: Sealing, bucket: S3Store, packs: list[Pack]
) -> Iterator[tuple[Pack, ObjectKey, list[memoryview]]]:
    for pack in packs:
        data = memoryview(obstore.get(bucket, pack.key).bytes())
        key = sealing.data_key(data)
        if key is None:
            raise ValueError("the repository is not encrypted")
        yield pack, key, [data[chunk.offset : chunk.offset + chunk.length] for chunk in pack.chunks]


def _plain(way: Way, chunk: Chunk, frame: bytes) -> bytes:
    return frame if chunk.stored else bytes(way.decode(frame))


class _Clock:
    """CPU seconds of this thread in calls of a function."""

    def __init__(self) -> None:
        self._seconds, self._calls = 0.0, 0

    def all(
        self, function: Callable[..., object], calls: Iterable[tuple[Any, ...]], *, keep: bool = False
    ) -> list[object]:
        """Results, or none of them: then each is dropped at once."""
        listed = list(calls)
        begin = time.thread_time()
        results = deque(starmap(function, listed), None if keep else 0)
        self._seconds += time.thread_time() - begin
        self._calls += len(listed)
        return list(results)

    def net(self, function: Callable[..., object], *nothing: Any) -> float:
        """Without what as many calls take that have nothing to do."""
        idle = _Clock()
        idle.all(function, repeat(nothing, self._calls))
        return max(self._seconds - idle._seconds, 0.0)
