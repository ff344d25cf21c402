"""Copy: a recovery point of one repository becomes a point of another, with other keys and chunks if need be.

Chunks are read, proved and exported anew, so nothing of the two repositories has to be alike. What an earlier copy of
the same machine brought over is not read again: the difference of the two points' indexes says what changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from manifests.entry import PackTable
from manifests.manifest import CopiedFrom, Disk
from manifests.names import encode_machine
from pipeline.catalogue import Point, forgotten, latest, load, points
from pipeline.errors import CatalogueError, FormatError, UsageError
from pipeline.exporters.point import PointExporter
from pipeline.progress import Watch, ignore
from pipeline.repository import Repository
from pipeline.transfer.export import ExportResult, export_machine
from pipeline.transfer.export_request import ChangedBlocks, DiskSource, ExportOptions, Original
from pipeline.transfer.index_reader import IndexReader, differences
from pipeline.transfer.prove import to_ranges
from pipeline.verify.disk import verify_disk
from pipeline.verify.report import VerifyReport


@dataclass(frozen=True, slots=True)
class Copied:
    """`point` is the one at the other repository; `result` None: it was there before."""

    source: str
    point: Point
    result: ExportResult | None
    proof: str
    """Empty when the digests cannot be compared."""


def check_other(source: Repository, target: Repository) -> None:
    """Raises UsageError when both are one repository."""
    if source.id == target.id:
        raise UsageError(
            f"{target.store.name} holds the same repository as {source.store.name}",
            remedy="name another repository; a copy of the whole bucket is what `failback repair --from` takes",
        )


def copied_points(target: Repository, machine: str) -> dict[CopiedFrom, Point]:
    """Usable points of a machine that are copies, by what they are copies of."""
    try:
        return {p.manifest.copied_from: p for p in points(target, machine) if p.manifest.copied_from}
    except CatalogueError:
        return {}


def origin_of(source: Repository, point: Point) -> CopiedFrom:
    manifest = point.manifest
    return CopiedFrom(
        repository=source.document.id,
        machine=manifest.machine.name,
        sequence=manifest.sequence,
        manifest=point.object_hash,
    )


def copy_point(
    source: Repository,
    point: Point,
    target: Repository,
    options: ExportOptions,
    *,
    there: dict[CopiedFrom, Point],
    watch: Watch = ignore,
    tell: Callable[[str], object] = lambda _text: None,
) -> Copied:
    """Make `point` a point of `target`; `there` are the copies that `target` has. Killed, the same call goes on.

    Raises what an export raises, and CorruptObject when the source is damaged: nothing is committed then.
    """
    manifest = point.manifest
    origin = origin_of(source, point)
    if origin in there:
        return Copied(manifest.label, there[origin], None, _proof(point, there[origin]))
    changes = _changes(source, point, target)
    with ExitStack() as stack:
        sources = []
        for disk in manifest.disks:
            exporter = PointExporter(
                source, point, disk, _folder(options.state, source, target, manifest.machine.name, disk)
            )
            stack.callback(exporter.close)
            sources.append(
                DiskSource(
                    exporter,
                    disk.name,
                    source_format=disk.source_format,
                    bus=disk.bus,
                    boot=disk.boot,
                    serial=disk.serial,
                    changes=changes.get(disk.number),
                )
            )
        options = replace(
            options,
            keep_going=True,
            consistency=manifest.consistency,
            original=Original(manifest.started, manifest.time, manifest.final, origin),
        )
        result = export_machine(target, manifest.machine, sources, options, watch=watch, tell=tell)
    copied = load(target, manifest.machine.name, result.sequence)
    assert copied is not None
    return Copied(manifest.label, copied, result, _proof(point, copied))


def verify_copy(
    source: Repository, point: Point, target: Repository, copied: Point, state: Path, *, watch: Watch = ignore
) -> Iterable[VerifyReport]:
    """Read every disk of the original and compare it with the copy's index, which may have other chunks and ids."""
    twins = {disk.number: disk for disk in copied.manifest.disks}
    for disk in point.manifest.disks:
        folder = _folder(state, source, target, point.manifest.machine.name, disk)
        exporter = PointExporter(source, point, disk.model_copy(update={"unreadable": ()}), folder)
        try:
            yield verify_disk(target, copied, twins[disk.number], exporter, watch=watch)
        finally:
            exporter.close()


def _folder(state: Path, source: Repository, target: Repository, machine: str, disk: Disk) -> Path:
    """Of the local copy of the source's index. Two copies to one repository never run at once: they share a session."""
    place = state / source.document.id / f"copied-to-{target.document.id}"
    return place / encode_machine(machine) / f"disk{disk.number}"


def _changes(source: Repository, point: Point, target: Repository) -> dict[int, ChangedBlocks]:
    """By disk, what differs from the point that the newest point of `target` is a copy of; nothing where that is not
    known for sure: then every chunk is read and compared."""
    parent = latest(target, point.manifest.machine.name)
    origin = parent.manifest.copied_from if parent else None
    if parent is None or origin is None or origin.repository != source.document.id:
        return {}
    try:
        if origin.sequence in forgotten(source, origin.machine, after=origin.sequence - 1):
            return {}
        before = load(source, origin.machine, origin.sequence)
    except (CatalogueError, FormatError):
        return {}
    if before is None or before.object_hash != origin.manifest:
        return {}
    old_disks = {disk.number: disk for disk in before.manifest.disks}
    found = {}
    for disk in point.manifest.disks:
        old = old_disks.get(disk.number)
        if old is None or (old.size, old.chunk_size) != (disk.size, disk.chunk_size):
            continue
        try:
            extents = _extents(source, old, disk)
        except FormatError:
            continue  # the older index is damaged; the newer one is enough
        # What could not be read may have become readable, or the other way round, without a change of content.
        extents += [*old.unreadable, *disk.unreadable]
        found[disk.number] = ChangedBlocks(parent.manifest.sequence, tuple(sorted(extents)))
    return found


def _extents(source: Repository, old: Disk, new: Disk) -> list[tuple[int, int]]:
    packs = PackTable()
    before, after = IndexReader(source, old, packs), IndexReader(source, new, packs)
    ranges: list[tuple[int, int]] = []
    for positions, _rows in differences(before, after):
        ranges += to_ranges(positions.tolist(), size=new.size, chunk_size=new.chunk_size)
    return ranges


def _proof(point: Point, copied: Point) -> str:
    pairs = zip(point.manifest.disks, copied.manifest.disks, strict=True)
    return "the digests of all disks are equal" if all(one.digest == two.digest for one, two in pairs) else ""
