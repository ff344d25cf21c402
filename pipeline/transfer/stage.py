"""What is known of a target disk: which point it holds, how far a restore came, and whether that can still be trusted.

A folder per target disk:

    lock         held by whoever works on the target
    stage.json   which point, `creating`, `staging`, `staged` or `kept`, and the guard when the disk was last seen good
    made         what tells the file that we made from one in its place (`pipeline.transfer.mark`)
    done         one bit a position: holds the point's chunk, written and flushed (while staging)
    copy/        the point's index (`pipeline.transfer.index_file`), whose tree proves later refreshes
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from manifests.entry import Positions
from manifests.manifest import Disk, Manifest
from pipeline.errors import TargetBusy, TargetError, TargetFull, TargetMismatch

KEPT = "kept"
"""State of a target into which a guest's writes were merged: it equals no point any more."""


@dataclass(frozen=True, slots=True)
class StageState:
    """The content of `stage.json`. `since` is the digest of the point that a refresh started from, else empty."""

    repository: str
    machine: str
    sequence: int
    number: int
    lineage: str
    size: int
    chunk_size: int
    digest: str
    state: str
    guard: str
    since: str = ""

    @classmethod
    def of(cls, repository: str, manifest: Manifest, disk: Disk, state: str, guard: str, since: str = "") -> StageState:
        return cls(
            repository,
            manifest.machine.name,
            manifest.sequence,
            disk.number,
            disk.lineage,
            disk.size,
            disk.chunk_size,
            disk.digest,
            state,
            guard,
            since,
        )


class Stage:
    """The folder of one target disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = -1
        self.state = self._load()
        """None when nothing was saved, or what was saved is damaged."""

    def _load(self) -> StageState | None:
        try:
            state = StageState(**json.loads((self.folder / "stage.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        kinds = {f.name: int if f.type == "int" else str for f in fields(StageState)}
        return state if all(isinstance(v, kinds[k]) for k, v in asdict(state).items()) else None

    @property
    def known(self) -> bool:
        """The target was made or taken over by failback, even when what is known of it is damaged."""
        return (self.folder / "stage.json").exists()

    def lock(self, target: str) -> None:
        """Keep other restores off until `unlock` or our end. Raises TargetBusy. Reads the state anew."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise TargetBusy(
                f"{target} is being restored by another process", remedy="wait for it, or stop it first"
            ) from None
        except OSError:
            pass  # a file system without locks; the writer has its own ways
        self._lock = fd
        self.state = self._load()

    def unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def forget(self) -> None:
        """Nothing is known of the target any more."""
        (self.folder / "stage.json").unlink(missing_ok=True)
        self.state = None

    @property
    def copy(self) -> Path:
        return self.folder / "copy"

    def save(self, state: StageState) -> None:
        """Durable when it returns: whatever it says must not be lost, nor said too early."""
        self.write("stage.json", json.dumps(asdict(state), indent=1).encode())
        self.state = state

    def write(self, name: str, data: bytes) -> None:
        """A small file in the folder, whole or not at all, and durable when it returns."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self.folder / f"{name}.new"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / name)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Done:
    """One bit a position, saved where a stage keeps it."""

    def __init__(self, path: Path, positions: int, *, keep: bool) -> None:
        self._path = path
        self._bits = np.zeros(-(-positions // 8), np.uint8)
        self._dirty = False
        if keep:
            stored = np.fromfile(path, np.uint8) if path.exists() else self._bits
            if len(stored) == len(self._bits):
                self._bits = stored
        else:
            path.unlink(missing_ok=True)

    @property
    def any(self) -> bool:
        return bool(self._bits.any())

    def holds(self, positions: Positions) -> NDArray[np.bool_]:
        held: NDArray[np.bool_] = (self._bits[positions >> 3] >> (positions & 7).astype(np.uint8)) & 1 != 0
        return held

    def add(self, positions: Positions) -> None:
        np.bitwise_or.at(self._bits, (positions >> 3).astype(np.intp), (1 << (positions & 7)).astype(np.uint8))
        self._dirty = True

    def save(self) -> None:
        """Call it after a flush of the target. A bit that is lost costs time only, so nothing is synchronised."""
        if not self._dirty:
            return
        temporary = self._path.with_name(self._path.name + ".new")
        self._bits.tofile(temporary)
        temporary.replace(self._path)
        self._dirty = False


def refuse_kept(path: Path, state: StageState | None) -> None:
    """Raises TargetMismatch for a target that holds what a guest wrote."""
    if state is not None and state.state == KEPT:
        raise TargetMismatch(
            f"{path} holds what the guest of {state.machine}@{state.sequence} wrote, which no point has",
            remedy="name another file, or remove this one when nothing in it is needed",
        )


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Say what it means when what is known of targets cannot be kept in `folder`. Writers raise errors of their own."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TargetFull(
                f"no room left in {where}", remedy="make room there and run the same command again: it goes on"
            ) from error
        raise TargetError(
            f"cannot use {where}: {error.strerror}", remedy="check that the folder can be written, then run it again"
        ) from error
