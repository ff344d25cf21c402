"""A place: a folder with everything of one machine, `<root>/<machine>-<marker>/`.

    lock                   held (flock) while its content is changed
    place.json             which machine and point, its disks, and whether a layer is being merged, or was
    stage/disk0.raw ...    the staged disks; stage/known/disk0 ... is what is known of each (pipeline.transfer.stage)
    build-rehearsal/       the machine, or
    build-production/      (importers.qemu.machine)

A machine's folder that ends in `.new` is half made and counts for nothing; one that ends in `.old` is half gone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from importers.qemu.definition import Node
from importers.qemu.durable import sync_folder, write_whole
from importers.qemu.hardware import StagedDisk
from manifests.machine import Model
from pipeline.errors import TargetBusy, TargetError, TargetMismatch
from pipeline.place import Purpose
from pipeline.transfer.local import LocalDisk

PURPOSES: tuple[Purpose, ...] = ("rehearsal", "production")


class Record(Model):
    """The content of `place.json`."""

    format: Literal[1] = 1
    marker: uuid.UUID
    machine: str
    sequence: int = 0
    """Of the point that was staged last, or is being staged; 0: none yet."""
    disks: tuple[StagedDisk, ...] = ()
    """Of that point."""
    nodes: dict[int, Node] = Field(default_factory=dict)
    """Where they are, relative to the place."""
    adopted: dict[int, Node] = Field(default_factory=dict)
    """Disks of somebody else that were taken over, by absolute path: never deleted."""
    merging: Literal["", "keeping", "kept"] = ""
    """A layer is being merged into the disks, or was: they are no stage any more."""


class Folder:
    """Where a place is, or would be."""

    def __init__(self, path: Path, marker: uuid.UUID) -> None:
        self.path = path
        self.marker = marker

    def read(self) -> Record | None:
        """None: there is no place, or one that was not completed. Raises TargetMismatch."""
        try:
            text = (self.path / "place.json").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            record = Record.model_validate_json(text)
        except ValidationError as error:
            raise TargetMismatch(
                f"{self.path}/place.json cannot be read: {error.errors()[0]['msg']}",
                remedy="it was made by another release, or damaged; move the folder away",
            ) from error
        if record.marker != self.marker:
            raise TargetMismatch(
                f"{self.path} belongs to another place ({record.marker})", remedy="somebody renamed it; move it away"
            )
        return record

    def write(self, record: Record) -> None:
        """Durable when it returns."""
        write_whole(self.path / "place.json", record.model_dump_json(indent=1))

    @property
    def stage(self) -> Path:
        return self.path / "stage"

    def machine(self, purpose: Purpose) -> Path:
        return self.path / f"build-{purpose}"

    def local(self, record: Record, number: int, image_format: str = "") -> LocalDisk:
        """Where disk `number` is, or is to be; `image_format` is for one that is not there yet."""
        known = self.stage / "known" / f"disk{number}"
        node = record.adopted.get(number) or record.nodes.get(number)
        if node is None:
            node = Node.model_validate(
                {"file": f"stage/disk{number}.{image_format or 'raw'}", "format": image_format or "raw"}
            )
        return LocalDisk(self.path / node.file, known, node.format)

    def create(self, machine: str) -> Record:
        """The place, which is locked; what is there already stays."""
        record = self.read()
        if record is None:
            record = Record(marker=self.marker, machine=machine)
            self.write(record)
            sync_folder(self.path.parent)
        return record

    @contextmanager
    def locked(self, *, create: bool = False) -> Iterator[None]:
        """Keep other commands from changing the place. Raises TargetBusy; TargetError when it does not exist."""
        descriptor = self._lock(create=create)
        try:
            yield
        finally:
            os.close(descriptor)

    def _lock(self, *, create: bool) -> int:
        path = self.path / "lock"
        while True:
            try:
                if create:
                    self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:
                raise TargetError(f"{self.path} is gone", remedy="run the import again") from None
            except OSError as error:
                raise TargetError(
                    f"{path} cannot be used: {error.strerror}", remedy="check who owns the folder, or name another"
                ) from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise TargetBusy(
                    f"another command works on {self.path}", remedy="wait for it, or stop it first"
                ) from None
            os.close(descriptor)  # of a place that was removed just now

    def delete(self) -> None:
        """All of it, the lock last. Links are removed, not followed."""
        for entry in sorted(self.path.iterdir(), key=lambda entry: (entry.name == "place.json", entry.name)):
            if entry.name != "lock":
                delete(entry)
        (self.path / "lock").unlink(missing_ok=True)
        self.path.rmdir()


def delete(path: Path) -> None:
    """A file, a link or a folder with all it holds; nothing when there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path, last: str) -> None:
    """Delete a folder, the file `last` at the end. Cut short, it is left as it was or under the name `going` gives."""
    if path.exists():
        delete(going(path))
        path.rename(going(path))
        sync_folder(path.parent)
    complete_discard(path, last)


def complete_discard(path: Path, last: str) -> None:
    """What a `discard` that was cut short left."""
    if going(path).is_dir():
        for entry in going(path).iterdir():
            if entry.name != last:
                delete(entry)
        delete(going(path))


def going(path: Path) -> Path:
    """Where a folder is while it is being deleted."""
    return path.with_name(path.name + ".old")


def find_folder(root: Path, marker: uuid.UUID) -> Folder | None:
    """The place with this marker below `root`, whole or not."""
    for path in sorted(root.glob(f"*-{marker}")):
        if path.is_dir() and not path.is_symlink():
            return Folder(path, marker)
    return None


def folder_for(root: Path, marker: uuid.UUID, machine: str) -> Folder:
    """The place with this marker, or where it would be made."""
    return find_folder(root, marker) or Folder(root / f"{machine}-{marker}", marker)


def all_folders(root: Path) -> Iterator[Folder]:
    """Every place below `root`."""
    for path in sorted(root.glob("*-????????-????-????-????-????????????")):
        try:
            yield Folder(path, uuid.UUID(path.name[-36:]))
        except ValueError:
            continue
