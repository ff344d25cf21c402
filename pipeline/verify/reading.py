"""Check by reading: every index object and pack of a point is read whole, every chunk decoded and hashed."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from manifests.entry import ID_SIZE, PackTable, Positions, Rows, empty_rows, ids_of
from manifests.envelope import check_header, object_id
from manifests.manifest import Disk
from manifests.names import pack_key
from manifests.pack import ChunkDecoder
from manifests.tree import LEAF_POSITIONS, disk_digest, leaf, zero_leaves
from pipeline.catalogue import Point
from pipeline.errors import CorruptObject, FormatError, KeyRefused, NotFound
from pipeline.mend.stand_in import stood_in
from pipeline.progress import Counters, Watch, ignore
from pipeline.repository import Repository, missing
from pipeline.transfer.fetch import Fetcher, PackJob, by_pack
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.pack_lists import packs_of
from pipeline.transfer.prove import to_ranges
from pipeline.transfer.relocations import Moved, relocations_of
from pipeline.units import count
from pipeline.verify.report import VerifyReport


def verify_reading(repository: Repository, point: Point, *, parallel: int = 6, watch: Watch = ignore) -> VerifyReport:
    """Everything a restore of the point would need, without a target. Damage is collected; StoreError is raised."""
    report = VerifyReport("")
    chunks = packs = 0
    for disk in point.manifest.disks:
        counters = Counters(phase="verify", disk=f"{point.manifest.label} disk {disk.number}", total=disk.size)
        try:
            c, p = _disk(repository, point, disk, report, counters, parallel, watch)
        except CorruptObject as error:
            report.problems.append(f"{point.manifest.label} disk {disk.number}: {error.message}")
            continue
        chunks, packs = chunks + c, packs + p
    report.problems += stood_in(repository)
    report.checked = (
        f"{count(chunks, 'chunk')} in {count(packs, 'pack')} were read, decoded and hashed; "
        "the index gives the disk digests"
    )
    return report


def _disk(
    repository: Repository,
    point: Point,
    disk: Disk,
    report: VerifyReport,
    counters: Counters,
    parallel: int,
    watch: Watch,
) -> tuple[int, int]:
    packs = PackTable()
    leaves = zero_leaves(disk.positions)
    chunks = 0
    seen: set[int] = set()
    with ThreadPoolExecutor(parallel, "verify") as pool:
        ahead: deque[tuple[PackJob, Future[tuple[int, list[tuple[int, str]]]]]] = deque()

        def take() -> None:
            job, future = ahead.popleft()
            read, bad = future.result()
            counters.read += read
            seen.add(job.pack)
            for position, problem in bad:
                [(offset, length)] = to_ranges([position], size=disk.size, chunk_size=disk.chunk_size)
                report.problems.append(
                    f"{point.manifest.label} disk {disk.number}, {length} bytes from {offset}: {problem}"
                )

        for positions, rows in IndexReader(repository, disk, packs).windows():
            _update_leaves(leaves, positions, rows, disk.positions)
            chunks += len(rows)
            for job in by_pack(positions, rows):
                ahead.append((job, pool.submit(_pack, repository, packs, job, disk.chunk_size)))
                if len(ahead) > parallel + 1:
                    take()
                counters.done = max(counters.done, int(job.positions[-1]) * disk.chunk_size)
                watch(counters)
        while ahead:
            take()
    named = packs_of(repository, disk)
    for pack in sorted(packs.ids[number] for number in seen):
        if pack not in named:
            report.problems.append(
                f"{point.manifest.label} disk {disk.number}: the index refers to {pack_key(pack)}, which no pack list"
                " of the disk names: a collection would delete it"
            )
    if disk_digest(leaves, size=disk.size, chunk_size=disk.chunk_size).hex() != disk.digest:
        report.problems.append(
            f"{point.manifest.label} disk {disk.number}: the index does not give the digest in the manifest"
        )
    return chunks, len(seen)


def _update_leaves(leaves: bytearray, positions: Positions, rows: Rows, count: int) -> None:
    numbers = positions // LEAF_POSITIONS
    for number in sorted(set(numbers.tolist())):
        at = numbers == number
        first = number * LEAF_POSITIONS
        page = empty_rows(min(LEAF_POSITIONS, count - first))
        page[(positions[at] - first).astype(int)] = rows[at]
        leaves[number * ID_SIZE : (number + 1) * ID_SIZE] = leaf(ids_of(page))


def _pack(repository: Repository, packs: PackTable, job: PackJob, chunk_size: int) -> tuple[int, list[tuple[int, str]]]:
    """As `_in_place`, without what an older version of the pack has, or what was repaired by relocation."""
    read, bad = _in_place(repository, packs, job, chunk_size)
    if bad:
        with suppress(FormatError):
            pack = packs.ids[job.pack]
            data, _key = repository.older_pack(pack, missing(pack_key(pack)))
            read, bad = read + len(data), _problems(repository, pack, data, job, chunk_size)
    if not bad:
        return read, bad
    fetcher = Fetcher(repository, chunk_size, packs)
    moved = relocations_of(repository, packs.ids[job.pack])
    left = [
        (position, problem) for position, problem in bad if not moved or not _relocated(fetcher, job, position, moved)
    ]
    return read + fetcher.fetched, left


def _relocated(fetcher: Fetcher, job: PackJob, position: int, moved: dict[int, list[Moved]]) -> bool:
    """Whether the chunk at a position is at another place now, and right there."""
    [at] = np.flatnonzero(job.positions == position)
    row = job.rows[at]
    for place in moved.get(int(row["offset"]), []):
        if place.id == row["id"].tobytes():
            try:
                fetcher.chunk(place)
                return True
            except FormatError:
                continue
    return False


def _in_place(
    repository: Repository, packs: PackTable, job: PackJob, chunk_size: int
) -> tuple[int, list[tuple[int, str]]]:
    """(bytes read, [(position, what is wrong)]) of one whole pack and the chunks the disk wants of it."""
    pack = packs.ids[job.pack]
    key = pack_key(pack)
    try:
        data = memoryview(repository.store.get(key))
    except NotFound:
        return 0, [(int(p), missing(key).message) for p in job.positions]
    return len(data), _problems(repository, pack, data, job, chunk_size)


def _problems(
    repository: Repository, pack: bytes, data: memoryview, job: PackJob, chunk_size: int
) -> list[tuple[int, str]]:
    key = pack_key(pack)
    whole = object_id(data) == pack
    decoder = ChunkDecoder(chunk_size)
    sealing = repository.sealing
    ids = ids_of(job.rows)
    bad: list[tuple[int, str]] = []
    try:
        check_header(data, sealing=sealing, name=key)
    except (FormatError, KeyRefused) as error:
        return [(int(p), error.message) for p in job.positions]
    cipher = sealing.data_key(data)
    columns = (job.positions.tolist(), *(job.rows[c].tolist() for c in ("offset", "length", "slot", "flags")))
    for i, (position, offset, length, slot, flags) in enumerate(zip(*columns, strict=True)):
        name = f"{key}, the chunk at byte {offset},"
        try:
            chunk_id = ids[i * ID_SIZE : (i + 1) * ID_SIZE]
            plain = decoder.decode(
                data[offset : offset + length], flags, key=cipher, slot=slot, chunk_id=chunk_id, name=name
            )
        except CorruptObject as error:
            bad.append((position, error.message))
            continue
        if repository.chunk_id(plain) != chunk_id:
            bad.append((position, f"{name} does not have the content its index says"))
    if not whole and not bad:
        bad.append((int(job.positions[0]), f"{key} is damaged outside the chunks of this disk"))
    return bad
