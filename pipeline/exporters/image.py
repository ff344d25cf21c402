"""A disk image in one of QEMU's formats: qcow2, VMDK, VHD, VHDX, VDI, with backing files."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import SourceBusy, SourceChanged, SourceError, UsageError
from pipeline.exporters.base import Exporter, Extent
from pipeline.exporters.blockdev import BlockDevice
from pipeline.exporters.files import FileState
from pipeline.exporters.format import decide_format
from pipeline.exporters.nbd import NbdExporter
from pipeline.exporters.usage import LIVE_REMEDY, device_user, file_user, qemu_writes
from pipeline.nbd.server import QemuNbd, ServerFailed, tool

_CONNECTIONS = 4
_INFO_TIMEOUT = 60


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What qemu-img says of an image: every file it consists of, its usable dirty bitmaps, and why others are not."""

    files: tuple[str, ...]
    bitmaps: tuple[str, ...]
    broken: dict[str, str]
    sealed: bool = False
    """Of a kind that is written front to back, once: a streamOptimized VMDK."""


class ImageExporter(Exporter):
    """Reads an image through a qemu-nbd of its own, which ends with this object or with our process."""

    def __init__(self, path: str, image_format: str | None = None, *, allow_live: bool = False) -> None:
        """Raises SourceBusy when any file of the image is written by somebody (QEMU's image lock, a loop device),
        unless `allow_live`; UsageError when the format is not clear or the QEMU tools are missing."""
        self.name = path
        self._path = str(Path(path).absolute())
        self._format = _format_of(path, image_format)
        self._info = image_info(self._path, self._format)
        user = next(filter(None, map(_user, self._info.files)), None)
        if user and not allow_live:
            raise SourceBusy(f"{path}: in use: {user}", remedy=LIVE_REMEDY)
        self.live = user is not None
        self._state = self._chain_state()
        self.identity = None if self.live else self._state
        self._server = self._serve([], _CONNECTIONS)
        try:
            self._nbd = NbdExporter(path, self._server.client)
            self.size = self._nbd.size
            self.sector_size = self._nbd.sector_size
            self.read_threads = self._nbd.read_threads
        except BaseException:
            self._server.close()
            raise

    def _serve(self, arguments: list[str], connections: int) -> QemuNbd:
        options = image_options(self._path, self._format, force_share=self.live)
        try:
            return QemuNbd(["--read-only", *arguments, "--image-opts", options], connections=connections)
        except ServerFailed as error:
            raise SourceError(f"{self.name}: cannot be opened as {self._format}: {error}") from error

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        return self._nbd.extents(start, end)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._nbd.read_into(offset, buffer)

    def change_maps(self) -> list[str]:
        """Persistent dirty bitmaps of a qcow2 image that were stored completely, and that writes are recorded in."""
        return list(self._info.bitmaps)

    def broken_change_maps(self) -> dict[str, str]:
        """Those that whoever writes to the image, or died doing so, has not written back; and disabled ones."""
        return dict(self._info.broken)

    def changed_extents(self, name: str) -> Iterator[tuple[int, int]]:
        if name not in self._info.bitmaps:
            raise KeyError(name)
        # qemu-nbd shows one bitmap, named at its start.
        server = self._serve(["--bitmap", name], 1)
        try:
            yield from NbdExporter(self.name, server.client).changed_extents(name)
        finally:
            self._stop(server)

    def check_unchanged(self) -> None:
        if not self.live and self._chain_state() != self._state:
            raise SourceChanged(
                f"{self.name}: was written to while it was read (the image or one of its backing files)",
                remedy="Stop what writes to it, or export a snapshot.",
            )

    def _chain_state(self) -> str | None:
        states = []
        for path in self._info.files:
            try:
                if not stat.S_ISREG(Path(path).stat().st_mode):
                    return None  # a block device keeps no time of its last change
                states.append(str(FileState.of(Path(path))))
            except OSError as error:
                raise SourceChanged(f"{self.name}: {path} is gone: {error.strerror}") from error
        return f"image:{self._format}:{','.join(states)}"

    def close(self) -> None:
        self._stop(self._server)

    def _stop(self, server: QemuNbd) -> None:
        try:
            server.close()
        except ServerFailed as error:
            raise SourceError(f"{self.name}: {error}", remedy="Start again.") from error


def image_options(path: str, image_format: str, *, force_share: bool = False) -> str:
    """QEMU's long way to name an image, in which no file name is taken for a protocol and no format is guessed."""
    driver = "host_device" if stat.S_ISBLK(Path(path).stat().st_mode) else "file"
    options = f"driver={image_format},file.driver={driver},file.filename={path.replace(',', ',,')}"
    return options + ",force-share=on" if force_share else options


def image_info(path: str, image_format: str) -> ImageInfo:
    """Ask qemu-img for an image and its backing files. Raises SourceError, also for parts that are not local files:
    an image from elsewhere shall not make us connect to anything."""
    program = tool("qemu-img")
    options = image_options(path, image_format, force_share=True)
    command = [program, "info", "--output=json", "--backing-chain", "--image-opts", options]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_INFO_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"{path}: qemu-img did not finish in {_INFO_TIMEOUT} s") from error
    if done.returncode != 0:
        message = done.stderr.decode("utf-8", "replace").strip().removeprefix("qemu-img: ")
        raise SourceError(f"{path}: cannot be opened as {image_format}: {message}")
    chain: list[dict[str, Any]] = json.loads(done.stdout)
    files = [path]
    for number, image in enumerate(chain):
        if number:
            files.append(image["filename"])
        details = image.get("format-specific", {}).get("data", {})
        if details.get("data-file"):
            files.append(str(Path(files[-1]).parent / details["data-file"]))
        files += [extent["filename"] for extent in details.get("extents", []) if "filename" in extent]
    local = []
    for name in files:
        if re.match(r"^[A-Za-z0-9+_.-]+:", name):
            raise SourceError(
                f"{path}: one of its parts is not a local file: {name}",
                remedy="Flatten the image first (qemu-img convert), if you trust where it came from.",
            )
        local.append(str(Path(name).absolute()))
    bitmaps = chain[0].get("format-specific", {}).get("data", {}).get("bitmaps", [])
    unusable = {bitmap["name"]: _why_unusable(bitmap.get("flags", [])) for bitmap in bitmaps}
    kind = chain[0].get("format-specific", {}).get("data", {}).get("create-type")
    return ImageInfo(
        tuple(dict.fromkeys(local)),
        bitmaps=tuple(name for name, why in unusable.items() if not why),
        broken={name: why for name, why in unusable.items() if why},
        sealed=kind == "streamOptimized",
    )


def _why_unusable(flags: list[str]) -> str:
    """Empty for a dirty bitmap that knows of every write."""
    if "in-use" in flags:
        return "it was not stored completely"
    return "" if "auto" in flags else "it is disabled, so writes may be missing in it"


def _format_of(path: str, image_format: str | None) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SourceError(f"{path}: cannot open: {error.strerror}") from error
    try:
        device = BlockDevice.of(fd)
        size = device.size if device else os.fstat(fd).st_size
        chosen = decide_format(path, fd, size, image_format)
    finally:
        os.close(fd)
    if chosen == "raw":
        raise UsageError(f"{path}: a raw disk is not read through qemu-nbd")
    return chosen


def _user(path: str) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SourceError(f"{path}: cannot open: {error.strerror}") from error
    try:
        device = BlockDevice.of(fd)
        if device is None:
            return file_user(fd)
        if qemu_writes(fd):
            return f"a running QEMU or another restore writes to {path} (image lock)"
        return device_user(device.number)
    finally:
        os.close(fd)


def open_image(spec: str, *, image_format: str | None = None, allow_live: bool = False) -> Exporter:
    """The factory of the entry point `image`."""
    return ImageExporter(spec, image_format, allow_live=allow_live)
