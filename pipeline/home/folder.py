"""What this host remembers of a place: who works on it, what for, and an importer's notes.

A folder per place, `<state>/places/<target>/<marker>/`:

    lock         held (flock) by the command that works on the place; says who it is
    place.json   which machine it is of, and whether a command that worked on it came to its end
    notes.json   the importer's journal

Losing it loses time: what is there is asked of the platform. Files are replaced whole and synchronised.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipeline.errors import PlaceHeld, TargetError, TargetFull


@dataclass(frozen=True, slots=True)
class Record:
    """The content of `place.json`."""

    repository: str
    """Its id."""
    target: str
    machine: str
    run: str
    out: str = ""
    """Where the user wanted the disks; empty: where the importer likes."""
    doing: str = ""
    """What a command is about; stays when it dies. Empty: it came to its end."""
    whole: bool = False
    """The disks were whole at least once: never to be taken for something half made."""
    wanted: str = ""
    """What the machine was built as, in short."""

    @property
    def name(self) -> str:
        """`MACHINE/RUN`, for people; no machine's name has a slash."""
        return f"{self.machine}/{self.run}"


class PlaceFolder:
    """The folder of one place; a `pipeline.target.Journal`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def marker(self) -> uuid.UUID:
        return uuid.UUID(self.folder.name)

    @property
    def record(self) -> Record | None:
        """None when there is none, or it is damaged."""
        found = _read(self.folder / "place.json")
        kinds = {f.name: bool if f.type == "bool" else str for f in fields(Record)}
        if not all(isinstance(found.get(name), kind) for name, kind in kinds.items()):
            return None
        return Record(**{name: found[name] for name in kinds})

    def save(self, record: Record) -> None:
        """Durable when it returns."""
        self._write("place.json", asdict(record))

    def change(self, **values: Any) -> None:
        """Save the record with other values."""
        if (record := self.record) is not None:
            self.save(replace(record, **values))

    def note(self, key: str, value: str) -> None:
        notes = _read(self.folder / "notes.json")
        if value:
            notes[key] = value
        else:
            notes.pop(key, None)
        self._write("notes.json", notes)

    def get(self, key: str) -> str:
        value = _read(self.folder / "notes.json").get(key, "")
        return value if isinstance(value, str) else ""

    @contextmanager
    def held(self, command: str) -> Iterator[None]:
        """Keep other commands off this place. Raises PlaceHeld, which says who works on it."""
        fd = -1
        while fd < 0:
            with _explained(self.folder):
                fd = self._lock()
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"pid {os.getpid()} ({command})".encode(), 0)
            yield
        finally:
            os.close(fd)

    def _lock(self) -> int:
        """The lock file, locked; -1 when somebody took it away between our look and our lock."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / "lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and path.stat().st_ino == os.fstat(fd).st_ino:
                return fd
        except BlockingIOError:
            holder = os.pread(fd, 1000, 0).decode("utf-8", "replace") or "an unknown process"
            os.close(fd)
            what = record.name if (record := self.record) else str(self.marker)
            raise PlaceHeld(
                f"another command works on {what}: held by {holder}", remedy="wait for it, or stop it first"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return -1

    def forget(self) -> None:
        """Nothing is remembered any more. Only who holds the lock may do this."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, values: dict[str, Any]) -> None:
        with _explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = self.folder / f"{name}.new"
            with temporary.open("wb") as file:
                file.write(json.dumps(values, indent=1).encode())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / name)
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


class Places:
    """The folders of all places that this host remembers."""

    def __init__(self, state: Path) -> None:
        self.root = state / "places"

    def of(self, target: str, marker: uuid.UUID) -> PlaceFolder:
        return PlaceFolder(self.root / target / str(marker))

    def all(self) -> list[PlaceFolder]:
        """Those with a record that can be read, in a steady order."""
        found = [PlaceFolder(path.parent) for path in self.root.glob("*/*/place.json")]
        named = [(record.name, record.target, place) for place in found if (record := place.record) is not None]
        return [place for _name, _target, place in sorted(named, key=lambda entry: entry[:2])]


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TargetFull(
                f"no room left in {folder}", remedy="make room there and run the same command again: it goes on"
            ) from error
        raise TargetError(
            f"cannot use {folder}: {error.strerror}", remedy="check that the state folder can be written"
        ) from error
