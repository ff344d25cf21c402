"""A block device as target: attached disk, volume, logical volume, loop device."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.errors import SourceError, TargetBusy, TargetError, TargetMismatch, UsageError
from pipeline.exporters.aligned import is_aligned
from pipeline.exporters.base import Extent
from pipeline.exporters.blockdev import BlockDevice
from pipeline.exporters.files import fill
from pipeline.exporters.usage import device_holder
from pipeline.writers.descriptor import DescriptorWriter, claim
from pipeline.writers.linux import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, fallocate


class DeviceWriter(DescriptorWriter):
    """Writes a block device that is opened exclusively. Made by `open_device`."""

    def __init__(self, fd: int, path: str, device: BlockDevice) -> None:
        self.name = path
        self.size = device.size
        self.fresh = False
        self._device = device
        self._sector = device.sector_size
        # On a block device a punched hole is REQ_OP_WRITE_ZEROES, which may unmap and always reads as zeros, and a
        # zeroed range is BLKZEROOUT, which writes zeros where the disk can't (linux/block/fops.c, blkdev_fallocate).
        # BLKDISCARD is not used: what a disk returns after it is not defined.
        self._direct = -1
        self._modes = [FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE]
        self._start(fd)

    def discard(self, offset: int, length: int) -> None:
        self._check_range(offset, length)
        end = offset + length
        start = -(-offset // self._sector) * self._sector
        stop = end // self._sector * self._sector
        if start >= stop:
            self._write_zeros(offset, length)
            return
        self._write_zeros(offset, start - offset)
        self._write_zeros(stop, end - stop)
        for mode in list(self._modes):
            try:
                fallocate(self._fd, mode, start, stop - start)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EREMOTEIO):
                    raise self._failed(error, start, stop - start) from error
                if mode in self._modes:
                    self._modes.remove(mode)
            else:
                return
        self._write_zeros(start, stop - start)

    def _sync(self) -> None:
        os.fsync(self._fd)

    def drop_cache(self) -> None:
        """What is read in whole pages from here on comes from the disk, past this host's cache: a proof is worth more
        so, and a disk that is larger than the memory is read faster."""
        super().drop_cache()
        if self._direct < 0:
            with suppress(OSError):  # a device that cannot: by way of the cache, which was just dropped
                self._direct = os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._check_range(offset, buffer.nbytes)
        if self._direct >= 0 and is_aligned(offset, buffer):
            with suppress(SourceError):  # around a bad sector parts are read that are not aligned
                fill(self._direct, offset, buffer, self.name)
                return
        super().read_into(offset, buffer)

    def close(self) -> None:
        if self._direct >= 0:
            os.close(self._direct)
            self._direct = -1
        super().close()

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        end = min(end, self.size)
        if start < end:
            yield Extent(start, end - start, zero=False)

    def guard(self) -> str:
        """Which disk, and how many writes this kernel has ever sent to it. Equal only within one boot and one life of
        the device, and only where writes are counted; otherwise never equal. Writes of another host to a shared disk
        are not seen: whoever attaches the disk must know that it is attached nowhere else."""
        self.flush()  # what others wrote through the page cache counts when it is on the disk
        written = self._device.written()
        if written is None:
            return f"unknown:{os.urandom(16).hex()}"
        return f"device:{self.size}:{'/'.join(self._device.serials())}:{written}"


def open_device(path: str, *, expect_size: int | None = None, expect_serial: str | None = None) -> DeviceWriter:
    """Open a block device for writing, exclusively.

    The device must be named twice over: by its path and by its exact size in bytes or its serial number (as the
    kernel, udev or the platform know it; case and dashes do not matter). A partition has no serial of its own and
    needs its size. Raises UsageError, TargetMismatch, TargetBusy (mounted even read-only, swap, held, QEMU's lock).
    """
    if expect_size is None and expect_serial is None:
        raise UsageError(
            f"{path}: a device to be overwritten must be named with its size or its serial number",
            remedy="lsblk -b -o NAME,SIZE,SERIAL shows both.",
        )
    # Looked at through a read-only descriptor first: closing one that could write makes udev probe the disk.
    fd = _open(path, os.O_RDONLY)
    try:
        number = _check(fd, path, expect_size, expect_serial).number
    finally:
        os.close(fd)
    holder = device_holder(number)
    if holder:
        raise TargetBusy(f"{path}: in use: {holder}", remedy="Unmount it, stop what uses it, or name another disk.")
    fd = _open(path, os.O_RDWR | os.O_EXCL)
    try:
        device = _check(fd, path, expect_size, expect_serial)  # the name may mean another disk by now
        claim(fd, path)
        return DeviceWriter(fd, path, device)
    except BaseException:
        os.close(fd)
        raise


def device_serials(path: str) -> list[str]:
    """Every serial number or other unchanging name of the disk at `path`."""
    fd = _open(path, os.O_RDONLY)
    try:
        return _block_device(fd, path).serials()
    finally:
        os.close(fd)


def _check(fd: int, path: str, expect_size: int | None, expect_serial: str | None) -> BlockDevice:
    device = _block_device(fd, path)
    if expect_size is not None and device.size != expect_size:
        raise TargetMismatch(
            f"{path}: has {device.size} bytes, not {expect_size}", remedy="Is it the disk you mean? See lsblk -b."
        )
    if expect_serial is not None:
        if device.is_partition and expect_size is None:
            raise UsageError(f"{path}: a partition has no serial number of its own", remedy="Give its size.")
        serials = device.serials()
        if not same_serial(expect_serial, serials):
            known = ", ".join(serials) or "none"
            raise TargetMismatch(
                f"{path}: serial number is not {expect_serial} (known: {known})", remedy="Is it the disk you mean?"
            )
    if device.read_only:
        raise TargetError(f"{path}: is read-only", remedy="blockdev --setrw, or attach it writable.")
    return device


def _block_device(fd: int, path: str) -> BlockDevice:
    device = BlockDevice.of(fd)
    if device is None:
        raise TargetMismatch(f"{path}: not a block device")
    return device


def same_serial(wanted: str, serials: Iterable[str]) -> bool:
    """Whether one of a disk's serial numbers is the one that is meant."""
    return _plain(wanted) in map(_plain, serials)


def _plain(serial: str) -> str:
    return serial.casefold().replace("-", "").replace(" ", "").strip()


def _open(path: str, flags: int) -> int:
    try:
        return os.open(Path(path).resolve(), flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise TargetBusy(
                f"{path}: another program holds it", remedy="Unmount it, stop what uses it, or name another disk."
            ) from None
        raise TargetError(f"{path}: cannot open: {error.strerror}") from error
