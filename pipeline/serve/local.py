"""The stage of the served disk: the raw file that is filled, and what is known of it (`pipeline.transfer.stage`)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from manifests.entry import Positions
from manifests.manifest import Disk
from manifests.sealing import Buffer
from pipeline.catalogue import Point
from pipeline.errors import SourceError, TargetMismatch
from pipeline.exporters.files import hole_extents
from pipeline.store.base import Bytes
from pipeline.transfer.mark import is_ours, put_mark
from pipeline.transfer.stage import Done, Stage, StageState, explained, refuse_kept
from pipeline.writers.raw import RawWriter, create_raw, open_raw

STAGE_FOLDER = ".failback"
"""Beside the file, as `failback import --to files` has it: each goes on where the other ended."""
_ACKNOWLEDGE_BYTES = 1 << 30
_ACKNOWLEDGE_SECONDS = 5.0


class LocalStage:
    """Open stage, locked. `complete`: it is proved to equal the point. `pure`: it holds chunks of the point and
    zeros, nothing else; otherwise what it held before may still be in it."""

    def __init__(self, path: Path, stage: Stage, writer: RawWriter, point: Point, disk: Disk, *, pure: bool) -> None:
        """Made by `open_local`, which has locked the stage."""
        self.path = path
        self.stage = stage
        self.writer = writer
        self.point = point
        self.disk = disk
        self.pure = pure
        self._lock = threading.Lock()
        self._done = Done(stage.folder / "done", disk.positions, keep=pure)
        self._noted: list[int] = []
        self._since = time.monotonic()

    @property
    def complete(self) -> bool:
        return self.stage.state is not None and self.stage.state.state == "staged"

    def held(self, positions: Positions) -> np.ndarray:
        """Which of the positions may hold their chunk."""
        if not self.pure:
            return np.ones(len(positions), bool)
        with self._lock:
            return self._done.holds(positions)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.writer.read_into(offset, buffer)

    def holds(self, position: int, wanted: bytes, chunk_id: Callable[[Buffer], bytes]) -> bool:
        """Whether the chunk with that id is there, by reading it."""
        size, offset = self.disk.chunk_size, position * self.disk.chunk_size
        buffer = bytearray(size)
        try:
            self.writer.read_into(offset, memoryview(buffer)[: min(size, self.disk.size - offset)])
        except SourceError:
            return False
        return chunk_id(buffer) == wanted

    def keep(self, position: int, chunk: Bytes) -> None:
        """Write a chunk that was fetched. Raises TargetFull, TargetError."""
        offset = position * self.disk.chunk_size
        self.writer.write(offset, [memoryview(chunk)[: self.disk.size - offset]])
        with self._lock:
            self._noted.append(position)

    def acknowledge(self, *, now: bool = False) -> None:
        """From time to time, or `now`: flush, and note what is surely there. Raises TargetError."""
        with self._lock:
            due = len(self._noted) * self.disk.chunk_size >= _ACKNOWLEDGE_BYTES
            if not now and not due and time.monotonic() - self._since < _ACKNOWLEDGE_SECONDS:
                return
            noted, self._noted, self._since = self._noted, [], time.monotonic()
        if not noted or not self.pure:
            return
        self.writer.flush()
        with self._lock, explained(self.stage.folder):
            self._done.add(np.array(noted, "<u8"))
            self._done.save()

    def close(self) -> None:
        self.writer.close()
        self.stage.unlock()


def stage_of(path: Path, known: Path | None = None) -> Stage:
    """What is known of a raw file, kept in the folder `known` or where `failback import --to files` has it."""
    return Stage(known or path.parent / STAGE_FOLDER / path.name)


def open_local(repository: str, point: Point, disk: Disk, path: Path, known: Path | None = None) -> LocalStage:
    """Lock and open the stage at `path`, made when it is not there. `repository` is the repository's id; `known` as
    in `stage_of`.

    Raises TargetBusy while somebody else works on it, TargetMismatch for a file that is not ours or holds a guest's
    writes, TargetError.
    """
    stage = stage_of(path, known)
    with explained(stage.folder):
        stage.lock(str(path))
        try:
            return _open(repository, point, disk, path, stage)
        except BaseException:
            stage.unlock()
            raise


def _open(repository: str, point: Point, disk: Disk, path: Path, stage: Stage) -> LocalStage:
    staging = StageState.of(repository, point.manifest, disk, "staging", "")
    state = stage.state
    if path.exists() and not is_ours(path, stage):
        raise TargetMismatch(
            f"{path} exists and was not written by failback", remedy="move it away, or name another file"
        )
    if not path.exists() or (state is not None and state.state == "creating"):
        writer = _make(path, stage, replace(staging, repository="", state="creating"))
        (stage.folder / "done").unlink(missing_ok=True)
        stage.save(staging)
        return LocalStage(path, stage, writer, point, disk, pure=True)
    refuse_kept(path, state)
    known_size = state is not None and state.size == path.stat().st_size
    writer = open_raw(str(path), disk.size, shrink=known_size)
    try:
        same = state is not None and (state.repository, state.size, state.chunk_size, state.digest) == (
            repository,
            disk.size,
            disk.chunk_size,
            disk.digest,
        )
        if same and state is not None:
            if state.state == "staging" and not state.since:
                return LocalStage(path, stage, writer, point, disk, pure=True)
            if state.state == "staged" and state.guard == writer.guard():
                return LocalStage(path, stage, writer, point, disk, pure=True)
        # It held another point, or somebody wrote to it: each chunk is believed when it has the right id.
        (stage.folder / "done").unlink(missing_ok=True)
        stage.save(replace(staging, since="unknown"))
        return LocalStage(path, stage, writer, point, disk, pure=False)
    except BaseException:
        writer.close()
        raise


def _make(path: Path, stage: Stage, creating: StageState) -> RawWriter:
    """An empty file; one that we made and were killed before anything was written to it serves as well."""
    if path.exists():
        with path.open("rb") as file:
            if not all(e.zero for e in hole_extents(file.fileno(), 0, path.stat().st_size)):
                raise TargetMismatch(
                    f"{path} exists and was not written by failback", remedy="move it away, or name another file"
                )
        path.unlink()
    stage.save(creating)
    writer = create_raw(str(path), creating.size)
    try:
        put_mark(path, stage)
        writer.flush()
    finally:
        writer.close()
    return open_raw(str(path), creating.size)
