"""A disk image in one of QEMU's formats as target: qcow2, VMDK, VHD, VHDX."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import SourceError, TargetBusy, TargetError, TargetFull, TargetMismatch, UsageError
from pipeline.exporters.base import Extent
from pipeline.exporters.files import FileState
from pipeline.exporters.format import format_by_content
from pipeline.exporters.image import image_info, image_options
from pipeline.exporters.usage import file_holder
from pipeline.nbd.server import QemuNbd, ServerFailed, tool
from pipeline.store.base import Bytes
from pipeline.writers.base import BlockWriter
from pipeline.writers.nbd import NbdWriter

_CONNECTIONS = 4
_CREATE_TIMEOUT = 120
_LOOK = 1024 * 1024

_OPTIONS = {
    "qcow2": "compat=1.1",
    # The one layout that is a single file, and that its format knows zeros of (qemu-img(1), vmdk).
    "vmdk": "subformat=monolithicSparse,zeroed_grain=on",
    # Else the size is rounded to a cylinder of an ancient geometry.
    "vpc": "subformat=dynamic,force_size=on",
    "vhdx": "subformat=dynamic",
}
_STEP = {"qcow2": 512, "vmdk": 512, "vpc": 512, "vhdx": 1024 * 1024}
"""What a size must be a multiple of."""


class ImageWriter(BlockWriter):
    """Writes an image through a qemu-nbd of its own. Made by `create_image` or `open_image`.

    The image has its final form when `close` has returned: some formats update their headers at the end.
    """

    def __init__(self, path: str, image_format: str, *, fresh: bool) -> None:
        self.name = path
        self.fresh = fresh
        self._path = str(Path(path).absolute())
        self._touched = fresh  # a new image was found in no state
        self._flushed_directory = not fresh
        self._lock = threading.Lock()
        self._state = str(FileState.of(Path(self._path)))
        # Formats without a cheap "reads as zeros" store real zeros on request; they are not asked where it is zero.
        self._stores_zeros = image_format != "qcow2"
        arguments = ["--discard=unmap", "--detect-zeroes=off", "--cache=writeback"]
        try:
            self._server: QemuNbd | None = QemuNbd(
                [*arguments, "--image-opts", image_options(self._path, image_format)], connections=_CONNECTIONS
            )
        except ServerFailed as error:
            if "lock" in str(error):
                raise TargetBusy(
                    f"{path}: in use: {error}", remedy="Stop the machine or wait for the other restore."
                ) from error
            raise TargetError(f"{path}: cannot be opened as {image_format}: {error}") from error
        try:
            self._nbd = NbdWriter(path, self._server.client, fresh=fresh)
        except BaseException:
            self._server.close()
            raise
        self.size = self._nbd.size

    def write(self, offset: int, buffers: Sequence[Bytes]) -> None:
        self._touched = True
        self._nbd.write(offset, buffers)

    def discard(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"{self.name}: {length} bytes at {offset} reach past the end at {self.size}")
        if not self._stores_zeros:
            self._touched = True
            self._nbd.discard(offset, length)
            return
        for extent in self.extents(offset, offset + length):
            if extent.zero:
                continue
            for start in range(extent.offset, extent.offset + extent.length, _LOOK):
                part = min(_LOOK, extent.offset + extent.length - start)
                if not self._reads_as_zeros(start, part):
                    self._touched = True
                    self._nbd.discard(start, part)

    def _reads_as_zeros(self, offset: int, length: int) -> bool:
        """VHDX does not tell which blocks it has, but reads those that it has not at no cost."""
        buffer = bytearray(length)
        self.read_into(offset, memoryview(buffer))
        return buffer.count(0) == length

    def flush(self) -> None:
        self._nbd.flush()
        with self._lock:
            if not self._flushed_directory:
                directory = os.open(Path(self._path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(directory)
                finally:
                    os.close(directory)
                self._flushed_directory = True

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        return self._nbd.extents(start, end)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._nbd.read_into(offset, buffer)

    def guard(self) -> str:
        """State of the image's file. Asked for before the first write it is the state in which we found it, whatever
        opening it changed; asked for after `close` it is the one that lasts."""
        if self._touched:
            self._state = str(FileState.of(Path(self._path)))
        return f"image:{self._state}"

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            try:
                server.close()
            except ServerFailed as error:
                raise TargetError(f"{self.name}: the image was not closed cleanly: {error}") from error


def create_image(path: str, size: int, image_format: str) -> ImageWriter:
    """A new image of at least `size` bytes: formats have size steps, and what is beyond `size` reads as zeros.

    TargetMismatch when the name is taken; removed again when something fails.
    """
    program = tool("qemu-img")
    step = _STEP.get(image_format)
    if step is None:
        raise UsageError(f"{image_format}: images of this format cannot be created")
    try:
        # qemu-img would overwrite a file without asking.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise TargetMismatch(f"{path}: exists already", remedy="Name a file that does not exist.") from None
    except OSError as error:
        raise TargetError(f"{path}: cannot create: {error.strerror}") from error
    try:
        rounded = max(-(-size // step) * step, step)
        command = [program, "create", "-q", "-f", image_format, "-o", _OPTIONS[image_format], "--"]
        try:
            subprocess.run(
                [*command, str(Path(path).absolute()), str(rounded)],
                capture_output=True,
                timeout=_CREATE_TIMEOUT,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            message = error.stderr.decode("utf-8", "replace").strip().removeprefix("qemu-img: ")
            full = "No space left" in message or "quota" in message
            raise (TargetFull if full else TargetError)(f"{path}: cannot create the image: {message}") from error
        except subprocess.TimeoutExpired as error:
            raise TargetError(f"{path}: qemu-img did not finish in {_CREATE_TIMEOUT} s") from error
        writer = ImageWriter(path, image_format, fresh=True)
        if writer.size < size:
            writer.close()
            raise TargetError(f"{path}: {image_format} made a disk of {writer.size} bytes out of {size}")
        return writer
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise


def open_image(path: str, size: int, image_format: str) -> ImageWriter:
    """An existing image of at least `size` bytes, without backing files (a write would make them useless)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise TargetError(f"{path}: cannot open: {error.strerror}") from error
    try:
        content = format_by_content(fd, os.fstat(fd).st_size)
        user = file_holder(fd)
    finally:
        os.close(fd)
    if content != image_format:
        raise TargetMismatch(f"{path}: is no {image_format} image, by its content {content or 'a raw disk'}")
    if user:
        raise TargetBusy(f"{path}: in use: {user}", remedy="Stop the machine or wait for the other restore.")
    try:
        info = image_info(str(Path(path).absolute()), image_format)
    except SourceError as error:
        raise TargetError(error.message, remedy=error.remedy) from error
    if len(info.files) > 1:
        raise TargetMismatch(
            f"{path}: consists of several files: {', '.join(info.files)}",
            remedy="Name an image of one file (qemu-img convert makes one).",
        )
    if info.sealed:
        raise TargetMismatch(
            f"{path}: is a streamOptimized VMDK, which cannot be changed in place",
            remedy="Name a new file, or the format vmdk-stream, which writes it whole again.",
        )
    writer = ImageWriter(path, image_format, fresh=False)
    if writer.size < size:
        writer.close()
        raise TargetMismatch(
            f"{path}: is a disk of {writer.size} bytes, the recovery point's has {size}",
            remedy="Make it longer (qemu-img resize) or name a new file.",
        )
    return writer
