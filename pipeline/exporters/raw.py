"""A regular file that holds a disk byte by byte."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import SourceBusy, SourceChanged, SourceError, UsageError
from pipeline.exporters.base import Exporter, Extent
from pipeline.exporters.files import FileState, fill, hole_extents
from pipeline.exporters.usage import LIVE_REMEDY, file_user


class RawExporter(Exporter):
    """Reads a raw disk file; holes are found without reading."""

    read_threads = 4

    def __init__(self, path: str, *, allow_live: bool = False) -> None:
        """Raises SourceBusy when somebody writes to the file (a mounted loop device, a running QEMU, swap), unless
        `allow_live`; then `live` tells that the copy is torn."""
        self.name = path
        self.sector_size = 512
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(f"{path}: cannot open: {error.strerror}") from error
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise UsageError(f"{path}: not a regular file")
            user = file_user(self._fd)
            if user and not allow_live:
                raise SourceBusy(
                    f"{path}: in use: {user}",
                    remedy=LIVE_REMEDY,
                )
            self.live = user is not None
            self._state = FileState.of(self._fd)
            self.size = self._state.size
            self.identity: str | None = None if self.live else f"file:{self._state}"
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        except BaseException:
            os.close(self._fd)
            raise

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        return hole_extents(self._fd, start, min(end, self.size))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        fill(self._fd, offset, buffer, self.name)

    def check_unchanged(self) -> None:
        now = FileState.of(self._fd)
        if now.size != self.size:
            verb = "shorter" if now.size < self.size else "longer"
            raise SourceChanged(
                f"{self.name}: became {verb} while it was read: {self.size} bytes at first, now {now.size}",
                remedy="Stop what writes to it, or export a snapshot.",
            )
        if now != self._state and not self.live:
            raise SourceChanged(
                f"{self.name}: was written to while it was read", remedy="Stop what writes to it, or export a snapshot."
            )

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_raw(spec: str, *, image_format: str | None = None, allow_live: bool = False) -> Exporter:
    """The factory of the entry point `raw`."""
    if image_format not in (None, "raw"):
        raise UsageError(f"{spec}: the raw exporter does not read {image_format}")
    return RawExporter(str(Path(spec)), allow_live=allow_live)
