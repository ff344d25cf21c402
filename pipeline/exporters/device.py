"""A block device: disk, partition, logical volume, loop device."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from pipeline.errors import SourceBusy, SourceChanged, SourceError, UsageError
from pipeline.exporters.base import Exporter, Extent
from pipeline.exporters.blockdev import BlockDevice
from pipeline.exporters.files import fill
from pipeline.exporters.usage import LIVE_REMEDY, device_user, qemu_writes


class DeviceExporter(Exporter):
    """Reads a block device. It knows no holes; zero chunks are found by reading."""

    read_threads = 4

    def __init__(self, path: str, *, allow_live: bool = False) -> None:
        """Raises SourceBusy when it is mounted read-write, swap, or otherwise written, itself or through what is
        built on it, unless `allow_live`; then `live` tells that the copy is torn."""
        self.name = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(f"{path}: cannot open: {error.strerror}") from error
        try:
            device = BlockDevice.of(self._fd)
            if device is None:
                raise UsageError(f"{path}: not a block device")
            self._device = device
            user = device_user(device.number)
            if user is None and qemu_writes(self._fd):
                user = "a running QEMU or another restore writes to it (image lock)"
            if user and not allow_live:
                raise SourceBusy(f"{path}: in use: {user}", remedy=LIVE_REMEDY)
            self.live = user is not None
            with contextlib.suppress(OSError):  # needs CAP_SYS_ADMIN
                device.drop_cache()
            self.size = device.size
            self.sector_size = device.sector_size
            self._diskseq = device.attribute("diskseq")
            self.identity = None if self.live else self._identity()
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        except BaseException:
            os.close(self._fd)
            raise

    def _identity(self) -> str | None:
        """A promise is only possible for a read-only device, and only where nobody can write below it unseen: a loop
        device (its file is watched) and a device-mapper one (a snapshot). Any other disk may be writable elsewhere."""
        device = self._device
        if not device.read_only:
            return None
        backing = device.backing()
        if backing is not None:
            return f"loop:{backing}:{device.size}"
        if device.attribute("dm/uuid"):
            written = device.written()
            return f"dm:{written}:{device.size}" if written else None
        return None

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        end = min(end, self.size)
        if start < end:
            yield Extent(start, end - start, zero=False)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        fill(self._fd, offset, buffer, self.name, self.sector_size)

    def check_unchanged(self) -> None:
        size = self._device.size
        if size != self.size:
            verb = "shorter" if size < self.size else "longer"
            raise SourceChanged(
                f"{self.name}: became {verb} while it was read: {self.size} bytes at first, now {size}",
                remedy="Export again.",
            )
        replaced = self._device.attribute("diskseq") != self._diskseq
        if replaced or (self.identity is not None and self._identity() != self.identity):
            raise SourceChanged(f"{self.name}: was written to or replaced while it was read", remedy="Export again.")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_device(spec: str, *, image_format: str | None = None, allow_live: bool = False) -> Exporter:
    """The factory of the entry point `device`."""
    if image_format not in (None, "raw"):
        raise UsageError(f"{spec}: the device exporter does not read {image_format}")
    return DeviceExporter(spec, allow_live=allow_live)
