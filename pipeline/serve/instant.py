"""Everything that serves one disk, opened together and closed in the right order."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from manifests.manifest import Disk
from pipeline.catalogue import Point
from pipeline.errors import UsageError
from pipeline.repository import Repository
from pipeline.serve.cache import ChunkCache
from pipeline.serve.chunks import Chunks
from pipeline.serve.disk import ServedDisk
from pipeline.serve.fill import Fill
from pipeline.serve.local import LocalStage, open_local
from pipeline.serve.lock import StateLock
from pipeline.serve.overlay import OverlayHead, open_overlay
from pipeline.serve.server import NbdServer
from pipeline.serve.traffic import Traffic

DEFAULT_CACHE = 64 << 20
STATUS = "status.json"


@dataclass(frozen=True, slots=True)
class Status:
    """How far a server is; also the content of `status.json` in its state folder. Bytes, unless said otherwise."""

    process: int
    point: str
    disk: int
    phase: str
    """serving (nothing is filled), filling, proving, filled, failed, ended."""
    total: int
    done: int
    fetched: int
    misses: int
    """Reads of the guest that had to wait for the store."""
    errors: int
    """Chunks that could not be had."""
    problem: str


class Instant:
    """A recovery point's disk, served from the moment it is opened. Use it as a context manager.

    `state` keeps what the guest writes. `fill` names the raw file to fill meanwhile, `known` the folder of what is
    known of it (see `stage_of`); without them chunks are only kept in `cache` bytes of memory. Closing flushes; being
    killed loses no write that was acknowledged.

    Raises TargetBusy when another server has `state`, or another restore `fill`; TargetMismatch when they belong to
    another disk; TargetError.
    """

    def __init__(
        self,
        repository: Repository,
        point: Point,
        disk: Disk,
        state: Path,
        *,
        fill: Path | None = None,
        known: Path | None = None,
        cache: int = DEFAULT_CACHE,
        parallel: int = 4,
        until_disconnected: bool = False,
    ) -> None:
        self.point, self.number, self.state = point, disk.number, state
        label = f"{point.manifest.label} disk {disk.number}"
        with ExitStack() as stack:
            lock = StateLock(state)
            stack.callback(lock.release)
            overlay = open_overlay(state, OverlayHead.of(repository.document.id, point.manifest, disk))
            stack.callback(overlay.close)
            local: LocalStage | None = None
            if fill is not None:
                local = open_local(repository.document.id, point, disk, fill, known)
                stack.callback(local.close)
            traffic = Traffic()
            self.chunks = Chunks(repository, disk, cache=ChunkCache(cache), traffic=traffic, local=local)
            self.disk = ServedDisk(self.chunks, overlay)
            self.server = NbdServer(
                self.disk, name=f"disk{disk.number}", description=label, until_disconnected=until_disconnected
            )
            stack.callback(self.server.join)
            stack.callback(self.chunks.close)
            self.fill: Fill | None = None
            if local is not None:
                self.fill = Fill(repository, self.chunks, local, traffic, parallel=parallel)
                stack.callback(self.fill.stop)
            # Before the fill is stopped, which may have to wait for the store.
            stack.callback(self.disk.flush)
            stack.callback(self.server.stop)
            if self.fill is not None:
                self.fill.start()
            self._stack = stack.pop_all()

    @property
    def status(self) -> Status:
        fill, counts = self.fill, self.chunks.counts
        return Status(
            os.getpid(),
            self.point.manifest.label,
            self.number,
            fill.phase if fill else "serving",
            self.disk.size,
            fill.done if fill else 0,
            counts.fetched,
            counts.misses,
            counts.errors,
            fill.problem if fill else "",
        )

    def save_status(self, *, phase: str = "") -> None:
        """For whoever started the server. Only news: when it cannot be written, nothing else suffers."""
        values = asdict(self.status) | ({"phase": phase} if phase else {})
        temporary = self.state / f"{STATUS}.new"
        try:
            temporary.write_text(json.dumps(values, indent=1))
            temporary.replace(self.state / STATUS)
        except OSError:
            temporary.unlink(missing_ok=True)

    def close(self) -> None:
        """Answer what was asked, flush, and let go of everything. Raises TargetError when the flush fails."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def disk_of(point: Point, number: int | None) -> Disk:
    """The disk of that number; None means the only one. Raises UsageError."""
    disks = point.manifest.disks
    if number is None and len(disks) == 1:
        return disks[0]
    for disk in disks:
        if disk.number == number:
            return disk
    numbers = ", ".join(str(d.number) for d in disks)
    if number is None:
        raise UsageError(f"{point.manifest.label} has {len(disks)} disks", remedy=f"give --disk, one of {numbers}")
    raise UsageError(f"{point.manifest.label} has no disk {number}", remedy=f"it has {numbers}")
