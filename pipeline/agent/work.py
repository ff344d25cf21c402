"""What an agent does for an order: look at its disks, make one equal a point, compare one with a point."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manifests.certificate import fingerprint
from manifests.manifest import Disk
from manifests.repository import RepositoryDocument
from manifests.sealing import Generation, Ring, Sealing
from pipeline.agent.disks import attached_disks, find_disk
from pipeline.agent.meter import MeteredWriter, Steps
from pipeline.agent.orders import Check, DiskName, Keys, PointDisk, Progress, Receive
from pipeline.catalogue import Point, load
from pipeline.errors import CatalogueError, CorruptObject, FormatError, KeyRefused, TargetMismatch, VerifyError
from pipeline.exporters.base import Exporter
from pipeline.exporters.device import DeviceExporter
from pipeline.progress import Counters
from pipeline.repository import Repository
from pipeline.store.base import Store
from pipeline.transfer.restore import DiskRestore
from pipeline.transfer.restore_plan import Vouched
from pipeline.transfer.stage import Stage, explained
from pipeline.units import size
from pipeline.verify.disk import verify_disk
from pipeline.writers.device import open_device

RANGES = 100
"""Ranges that differ which a check reports."""


@dataclass(slots=True)
class Work:
    """One order while it is worked on. `watch` is called often, and raises Cancelled when the work shall end."""

    store: Store
    document: RepositoryDocument
    steps: Steps
    watch: Callable[[Counters], None]
    parallel: int = 6
    again: bool = False
    """An earlier attempt may have begun."""


def inventory() -> dict[str, Any]:
    """Every disk of this host."""
    return {"disks": [disk.to_json() for disk in attached_disks()]}


def receive(work: Work, params: Receive, known: Path) -> dict[str, Any]:
    """Make the disk equal the point, and prove it. `known`: the folder of what is known of this disk.

    Returns what `DiskRestore.run` tells, and how many bytes were written.
    """
    work.steps.begin("open")
    repository = _repository(work, params.keys)
    point, disk = _point(repository, params.point)
    vouched = _vouched(repository, params, again=work.again)
    found = find_disk(params.disk)
    if params.fresh:
        _forget(known, params.fresh)
    stage = Stage(known)
    with explained(known), _seeds(params.seeds) as seeds:
        stage.lock(str(params.disk))
        try:
            writer = MeteredWriter(
                open_device(found.path, expect_size=params.disk.size, expect_serial=params.disk.serial), work.steps
            )
            try:
                work.steps.begin("plan")
                done = DiskRestore(
                    repository,
                    point,
                    disk,
                    writer,
                    stage,
                    seeds=seeds,
                    vouched=vouched,
                    parallel=work.parallel,
                    watch=work.watch,
                ).run()
            finally:
                work.steps.begin("close")
                writer.close()
        finally:
            stage.unlock()
    return {
        "path": found.path,
        "mode": done.mode,
        "reason": done.reason,
        "proof": done.proof,
        "digest": disk.digest,
        "written": writer.written,
        "discarded": writer.discarded,
        "fetched": done.counters.read,
        "seeded": done.counters.deduplicated,
    }


def check(work: Work, params: Check) -> dict[str, Any]:
    """Read the whole disk. Raises VerifyError when it does not equal the point."""
    work.steps.begin("open")
    repository = _repository(work, params.keys)
    point, disk = _point(repository, params.point)
    with _reading(params.disk) as exporter:
        work.steps.begin("read")
        report = verify_disk(repository, point, disk, exporter, parallel=work.parallel, watch=work.watch)
    if not report.ok:
        shown = ", ".join(f"{offset}+{length}" for offset, length in report.ranges[:RANGES])
        raise VerifyError(
            f"{params.disk} differs from {params.point} at bytes {shown or 'unknown'}"
            f"{' …' if len(report.ranges) > RANGES else ''}{''.join(f'; {p}' for p in report.problems[:5])}",
            remedy="order it to be written again, without vouching for what it holds",
        )
    return {"digest": disk.digest, "bytes": disk.size}


def progress_of(counters: Counters) -> Progress:
    return Progress(
        phase=counters.phase,
        disk=counters.disk,
        total=counters.total,
        done=counters.done,
        read=counters.read,
        written=counters.written,
        deduplicated=counters.deduplicated,
    )


def _forget(known: Path, word: str) -> None:
    """What is known of a disk goes, once for each word: what was learnt since stays when the order is given again."""
    said = known / f"fresh-{word}"
    if not said.exists():
        shutil.rmtree(known, ignore_errors=True)
        known.mkdir(parents=True, mode=0o700)
        said.touch()


def _repository(work: Work, keys: Keys | None) -> Repository:
    """The repository, with the keys of the order. Raises KeyRefused when they are not its keys."""
    document = work.document
    if document.encryption is None:
        return Repository(work.store, document)
    if keys is None or fingerprint(bytes.fromhex(keys.root)) != document.encryption.fingerprint:
        raise KeyRefused(
            f"the order brings {'no keys' if keys is None else 'the keys of another repository'} for {work.store.name}",
            remedy="somebody changed repository.json, or the controller's repository is another one",
        )
    ring = Ring(
        root=bytes.fromhex(keys.root),
        ids=bytes.fromhex(keys.ids),
        generations={
            number: Generation(bytes.fromhex(index), bytes.fromhex(data))
            for number, (index, data) in keys.generations.items()
        },
    )
    return Repository(work.store, document, Sealing(document.id_bytes, ring))


def _point(repository: Repository, wanted: PointDisk) -> tuple[Point, Disk]:
    """Exactly the manifest and the disk that the order names: whoever can change the bucket cannot change that."""
    point = load(repository, wanted.machine, wanted.sequence)
    if point is None or point.object_hash != wanted.manifest:
        raise CorruptObject(
            f"{wanted.machine}@{wanted.sequence} is not the point that was ordered: its manifest is another object",
            remedy="somebody wrote over it; `failback verify` says more",
        )
    for disk in point.manifest.disks:
        if disk.number == wanted.number and disk.digest == wanted.digest:
            return point, disk
    raise CorruptObject(f"{wanted} is not the disk that was ordered", remedy="order it by its point's own manifest")


def _vouched(repository: Repository, params: Receive, *, again: bool) -> Vouched | None:
    """What the controller says of the disk. A point that is gone or damaged is no help: then the disk is read."""
    if params.held is None:
        return None
    held = params.held.point
    if held is None:
        return Vouched(None, "zeros", again=again)
    try:
        _point_held, disk = _point(repository, held)
    except (CatalogueError, FormatError, KeyRefused):
        return None
    return Vouched(disk, f"{held.machine}@{held.sequence}", again=again)


@contextmanager
def _reading(name: DiskName) -> Iterator[Exporter]:
    """A disk of this host, only to be read. Raises TargetMismatch, SourceBusy."""
    found = find_disk(name)
    exporter = DeviceExporter(found.path)
    try:
        if exporter.size != name.size:
            raise TargetMismatch(f"{found.path} has {size(exporter.size)} by now", remedy="order again")
        yield exporter
    finally:
        exporter.close()


@contextmanager
def _seeds(names: Sequence[DiskName]) -> Iterator[list[Exporter]]:
    exporters: list[Exporter] = []
    try:
        for name in names:
            exporters.append(DeviceExporter(find_disk(name).path))
        yield exporters
    finally:
        for exporter in exporters:
            exporter.close()
