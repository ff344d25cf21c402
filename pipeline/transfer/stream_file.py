"""A disk of a recovery point becomes a streamOptimized VMDK in a file: whole, unless it is that already."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from blake3 import blake3

from manifests.manifest import Disk
from pipeline.catalogue import Point
from pipeline.errors import VerifyError
from pipeline.place import DiskRestored
from pipeline.progress import Counters, Watch, ignore
from pipeline.repository import Repository
from pipeline.transfer.disk_stream import DiskStream, StreamOptions
from pipeline.transfer.local import LocalDisk, made_or_opened, refuse_foreign
from pipeline.transfer.stage import Stage, StageState, explained
from pipeline.writers.raw import RawWriter, create_raw, open_raw
from pipeline.writers.vmdk_stream import adapter_of

STREAM_FORMAT = "vmdk-stream"
_LEVEL = 1
_DIGEST = "blake3"
_PIECE = 4 << 20


def stage_stream(
    repository: Repository, point: Point, disk: Disk, local: LocalDisk, *, parallel: int = 6, watch: Watch = ignore
) -> DiskRestored:
    """Make the file the stream of a disk. After a kill, and for another point, it is written whole once more.

    Raises TargetMismatch for a file that failback did not write, TargetBusy while another restore works on it,
    TargetFull, VerifyError, and what `DiskStream` raises.
    """
    begun = time.monotonic()
    with explained(local.known):
        stage = Stage(local.known)
        refuse_foreign(local, stage)
        stage.lock(str(local.path))
        try:
            if _whole(stage, local, repository, disk):
                return _unchanged(point, disk, local, "proved before, and nobody wrote since")
            reason = _why(stage, local, disk)
            writer = made_or_opened(
                point,
                disk,
                local,
                stage,
                create=lambda: create_raw(str(local.path), 0),
                existing=lambda: open_raw(str(local.path), local.path.stat().st_size),
            )
            try:
                stage.save(_state(repository, point, disk, "staging", ""))
                counters = _write(repository, point, disk, writer, parallel=parallel, watch=watch)
                stage.save(_state(repository, point, disk, "staged", writer.guard()))
            finally:
                writer.close()
        finally:
            stage.unlock()
    done = DiskRestored(
        disk.number, str(local.path), "full", reason, disk.digest, "the stream was read back from the file", counters
    )
    return replace(done, seconds=time.monotonic() - begun)


def forecast_stream(repository: Repository, point: Point, disk: Disk, local: LocalDisk) -> DiskRestored:
    """What `stage_stream` would fetch; nothing is written."""
    with explained(local.known):
        stage = Stage(local.known)
        refuse_foreign(local, stage)
        if _whole(stage, local, repository, disk):
            return _unchanged(point, disk, local, "dry run")
        reason = _why(stage, local, disk)
    counters = Counters(phase="stream", disk=str(local.path))
    return DiskRestored(disk.number, str(local.path), "full", reason, disk.digest, "dry run", counters, disk.live_bytes)


def held_stream(local: LocalDisk) -> str:
    """Why the file cannot be trusted to be what was written to it; empty when it can. Changes nothing."""
    state = Stage(local.known).state
    if state is None:
        return "nothing is known of what the target holds"
    if state.state != "staged":
        return f"a restore to {state.machine}@{state.sequence} was cut short"
    if not local.path.exists():
        return f"{local.path} is gone"
    return "" if _guard(local.path) == state.guard else "somebody wrote to the target since it was staged"


def _write(
    repository: Repository, point: Point, disk: Disk, writer: RawWriter, *, parallel: int, watch: Watch
) -> Counters:
    """Write, flush, read back. Raises VerifyError."""
    options = StreamOptions(level=_LEVEL, adapter=adapter_of(disk.bus), parallel=parallel, digests=(_DIGEST,))
    stream = DiskStream(repository, point, disk, options, watch=watch)
    writer.empty()
    with closing(iter(stream)) as blocks:
        for block in blocks:
            writer.append(block)
    writer.flush()
    writer.drop_cache()
    counters = stream.counters
    counters.phase, counters.done, counters.total = "prove", 0, writer.size
    hashed, buffer = blake3(), bytearray(_PIECE)
    for offset in range(0, writer.size, _PIECE):
        view = memoryview(buffer)[: min(_PIECE, writer.size - offset)]
        writer.read_into(offset, view)
        hashed.update(view)
        counters.done += len(view)
        watch(counters)
    if hashed.hexdigest() != stream.digest(_DIGEST):
        raise VerifyError(
            f"{writer.name} does not read back what was written",
            remedy="the disk or its connection is faulty, or somebody else wrote to it; run the same command again",
        )
    return counters


def _state(repository: Repository, point: Point, disk: Disk, state: str, guard: str) -> StageState:
    return StageState.of(repository.document.id, point.manifest, disk, state, guard)


def _whole(stage: Stage, local: LocalDisk, repository: Repository, disk: Disk) -> bool:
    """Whether the file is this very disk's stream, and nobody wrote to it since."""
    state = stage.state
    same = state is not None and (state.repository, state.digest) == (repository.document.id, disk.digest)
    return same and not held_stream(local)


def _why(stage: Stage, local: LocalDisk, disk: Disk) -> str:
    if not local.path.exists() or stage.state is None or stage.state.state == "creating":
        return "the target is new"
    held = held_stream(local) or f"the target holds {stage.state.machine}@{stage.state.sequence}"
    return f"{held}; a VMDK stream is written whole"


def _unchanged(point: Point, disk: Disk, local: LocalDisk, proof: str) -> DiskRestored:
    counters = Counters(phase="stream", disk=str(local.path), total=disk.size, done=disk.size)
    reason = f"the target holds {point.manifest.label} or its equal"
    return DiskRestored(disk.number, str(local.path), "unchanged", reason, disk.digest, proof, counters)


def _guard(path: Path) -> str:
    writer = open_raw(str(path), path.stat().st_size)
    try:
        return writer.guard()
    finally:
        writer.close()
