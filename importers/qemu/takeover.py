"""A machine that runs in QEMU and was not built by us: where it is reached, and what we keep of it beside it.

`failback.json` in its folder has our notes (a `pipeline.target.Journal`): the epoch, what was begun, and how its
process was started, so that it can be again. Losing it means that nobody knows whether it was fenced: it is never
rebuilt from nothing when it is damaged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from importers.qemu.agent import AgentError
from importers.qemu.arguments import AGENT_SOCKET, QMP_SOCKET
from importers.qemu.durable import write_whole
from importers.qemu.qmp import Qmp, QmpGone
from manifests.machine import Model
from pipeline.errors import SourceError, SourceUnavailable, TargetError, TargetUnavailable, Unsupported

NOTES = "failback.json"
LOCK = "failback.lock"
OURS = "failback"
"""What names of all that we make in a running QEMU begin with."""
_LOCAL = ("file", "host_device")
"""Drivers of nodes that are files or devices of this host (qemu/qapi/block-core.json, BlockdevDriver)."""


class Image(Model):
    """A disk as its guest has it."""

    device: str
    node: str
    file: str
    format: str
    bus: str = ""
    bitmaps: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    """Those that were not stored completely when QEMU ended the last time."""
    size: int = 0


class Run(Model):
    """How a process of QEMU was started."""

    process: int
    started: str
    """Its start time in ticks since boot, and the boot: no other process has both."""
    arguments: tuple[str, ...]
    folder: str
    images: tuple[Image, ...]
    files: tuple[str, ...]
    """All that it may write to."""

    @property
    def identity(self) -> str:
        return f"{self.process} {self.started}"

    @property
    def alive(self) -> bool:
        return started(self.process) == self.started


def started(process: int) -> str:
    """Empty when there is no such process, or it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else f"{fields[19]} {boot}"


@dataclass(frozen=True, slots=True)
class Takeover:
    """Where the machine is."""

    machine: str
    folder: Path
    qmp_name: str = QMP_SOCKET
    agent_name: str = AGENT_SOCKET

    @contextmanager
    def qmp(self, *, seconds: float = 10.0) -> Iterator[Qmp]:
        """Raises SourceUnavailable when nobody answers, SourceError when QEMU refuses."""
        with explained(self.machine), Qmp(self.folder, name=self.qmp_name, seconds=seconds) as qmp:
            yield qmp

    # -- notes -----------------------------------------------------------------------------------------------------

    def get(self, key: str) -> str:
        return str(self._notes().get(key, ""))

    def note(self, key: str, value: str) -> None:
        notes = self._notes()
        if value:
            notes[key] = value
        else:
            notes.pop(key, None)
        try:
            write_whole(self.folder / NOTES, json.dumps(notes, indent=1))
        except OSError as error:
            raise SourceError(
                f"{self.machine}: {self.folder / NOTES} cannot be written: {error.strerror}",
                remedy="make room there, or check who owns the folder",
            ) from error

    def _notes(self) -> dict[str, Any]:
        path = self.folder / NOTES
        try:
            found = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise SourceError(
                f"{self.machine}: {path} cannot be read: {error}",
                remedy="it says who may act on the machine; mend it, or look how things stand and move it away",
            ) from error
        if not isinstance(found, dict):
            raise SourceError(f"{self.machine}: {path} has no notes in it", remedy="move it away")
        return found

    # -- the process -----------------------------------------------------------------------------------------------

    @property
    def noted(self) -> Run | None:
        """How it was started when we last looked."""
        text = self.get("run")
        if not text:
            return None
        try:
            return Run.model_validate_json(text)
        except ValidationError as error:
            raise SourceError(
                f"{self.machine}: {self.folder / NOTES} makes no sense about its process: {error.errors()[0]['msg']}",
                remedy="it was written by another release, or damaged",
            ) from error

    def look(self, qmp: Qmp) -> Run:
        """The process that answers. What it was started with is noted, so that it can be started again."""
        run = self.seen(qmp)
        if run != self.noted:
            self.note("run", run.model_dump_json())
        return run

    def seen(self, qmp: Qmp) -> Run:
        """The same; nothing is noted."""
        number = qmp.process
        folder = working_folder(number)
        before = self.noted
        if before is not None and before.process == number and before.alive and _read_by_us(qmp):
            return before  # the job's filter stands where the disks are
        return Run(
            process=number,
            started=started(number),
            arguments=_arguments(number),
            folder=folder,
            images=tuple(_images(qmp)),
            files=tuple(_files(qmp, folder)),
        )

    def holders(self, run: Run) -> list[str]:
        """Who has one of its files open, in words; besides those who cannot be seen from here."""
        return [words for file in run.files if (words := _holder(Path(run.folder) / file))]


def _read_by_us(qmp: Qmp) -> bool:
    return any(str(job["device"]).startswith(OURS) for job in qmp.execute("query-block-jobs"))


def _arguments(number: int) -> tuple[str, ...]:
    try:
        words = Path(f"/proc/{number}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in words)


def working_folder(number: int) -> str:
    """Of that process."""
    try:
        return os.readlink(f"/proc/{number}/cwd")  # noqa: PTH115 - not followed further
    except OSError:
        return "/"


def _images(qmp: Qmp) -> Iterator[Image]:
    """Disks that the guest can write to, in QEMU's order: no flash, no CD-ROM."""
    for entry in qmp.execute("query-block"):
        inserted, where = entry.get("inserted"), str(entry.get("qdev", ""))
        if not inserted or inserted["ro"] or entry.get("removable") or not where or "flash" in where:
            continue
        maps = inserted.get("dirty-bitmaps", [])
        yield Image(
            device=str(entry["device"]),
            node=str(inserted["node-name"]),
            file=str(inserted["file"]),
            format=str(inserted["drv"]),
            bus=_bus(qmp, where),
            bitmaps=tuple(m["name"] for m in maps if m.get("name") and not m.get("inconsistent")),
            broken=tuple(m["name"] for m in maps if m.get("inconsistent")),
            size=int(inserted["image"]["virtual-size"]),
        )


_BUSES = {"virtio-blk": "virtio", "nvme": "nvme", "ide-hd": "sata", "scsi-hd": "virtio-scsi"}


def _bus(qmp: Qmp, where: str) -> str:
    """As manifests call it; empty where it is not known. `where`: path of the device, or of its back end."""
    try:
        kind = str(qmp.execute("qom-get", path=where.removesuffix("/virtio-backend"), property="type"))
    except TargetError:
        return ""
    return next((bus for beginning, bus in _BUSES.items() if kind.startswith(beginning)), "")


def _files(qmp: Qmp, folder: str) -> Iterator[str]:
    for node in qmp.execute("query-named-block-nodes", flat=True):
        if node["drv"] in _LOCAL and not node["ro"] and not str(node.get("node-name", "")).startswith(OURS):
            yield str(Path(folder) / str(node["file"]))


def _holder(path: Path) -> str:
    """Who has it open; empty: nobody that can be seen."""
    from pipeline.exporters.usage import file_holder, qemu_writes

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SourceUnavailable(
            f"{path} cannot be looked at: {error.strerror}", remedy="not known is not off: mend that, then look again"
        ) from error
    try:
        if qemu_writes(descriptor) or (path.is_file() and (_words := file_holder(descriptor))):
            return f"{path} is in use (image lock, or a loop device)"
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            held = entry.stat()
            same = (held.st_dev, held.st_ino) == (status.st_dev, status.st_ino)
            if same and entry.parts[2] != str(os.getpid()) and _written(entry):
                return f"process {entry.parts[2]} has {path} open"
        except OSError:
            continue
    return ""


def _written(entry: Path) -> bool:
    """Whether a descriptor of a process was opened to write."""
    flags = (entry.parent.parent / "fdinfo" / entry.name).read_text().partition("flags:")[2].split()[0]
    return int(flags, 8) & os.O_ACCMODE != os.O_RDONLY


@contextmanager
def explained(machine: str) -> Iterator[None]:
    """What QEMU and its guest agent raise leaves as errors of a source."""
    try:
        yield
    except (QmpGone, TargetUnavailable) as error:
        raise SourceUnavailable(f"{machine}: {error.message}", remedy=error.remedy) from error
    except Unsupported:
        raise
    except (AgentError, TargetError) as error:
        raise SourceError(f"{machine}: {error.message}", remedy=error.remedy) from error
