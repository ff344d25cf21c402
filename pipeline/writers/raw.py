"""A regular file that becomes a disk byte by byte, sparse."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import TargetBusy, TargetError, TargetMismatch
from pipeline.exporters.base import Extent
from pipeline.exporters.files import FileState, hole_extents
from pipeline.exporters.usage import file_holder
from pipeline.store.base import Bytes
from pipeline.writers.descriptor import DescriptorWriter, claim
from pipeline.writers.linux import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate


class RawWriter(DescriptorWriter):
    """Writes a raw disk file. Made by `create_raw` or `open_raw`."""

    def __init__(self, fd: int, path: str, size: int, *, fresh: bool) -> None:
        self.name = path
        self.size = size
        self.fresh = fresh
        self._start(fd)
        self._sync_metadata = True
        self._sync_directory = fresh
        self._can_punch = True

    def empty(self) -> None:
        """Cut the file to no length."""
        _resize(self._fd, self.name, 0)
        self.size = 0

    def append(self, buffer: Bytes) -> None:
        """Write behind the end, which moves. Not from several threads at once."""
        offset = self.size
        self.size += len(buffer)
        self.write(offset, [buffer])

    def discard(self, offset: int, length: int) -> None:
        self._check_range(offset, length)
        if length == 0:
            return
        if self._can_punch:
            try:
                fallocate(self._fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                    raise self._failed(error, offset, length) from error
                self._can_punch = False
            else:
                return
        self._write_zeros(offset, length)

    def _sync(self) -> None:
        """The first time also the inode and the directory entry; afterwards fdatasync stores all that data needs."""
        if not self._sync_metadata:
            os.fdatasync(self._fd)
            return
        os.fsync(self._fd)
        if self._sync_directory:
            directory = os.open(Path(self.name).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
            self._sync_directory = False
        self._sync_metadata = False

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        return hole_extents(self._fd, start, min(end, self.size))

    def guard(self) -> str:
        return f"file:{FileState.of(self._fd)}"


def create_raw(path: str, size: int) -> RawWriter:
    """A new sparse file of `size` bytes. TargetMismatch when the name is taken; removed again when that fails."""
    fd = _open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        claim(fd, path)
        _resize(fd, path, size)
        return RawWriter(fd, path, size, fresh=True)
    except BaseException:
        os.close(fd)
        Path(path).unlink(missing_ok=True)
        raise


def open_raw(path: str, size: int, *, shrink: bool = False) -> RawWriter:
    """An existing file, made longer when it is shorter than `size`.

    A longer one is TargetMismatch unless `shrink`: what would be cut off cannot be brought back.
    """
    fd = _open(path, os.O_RDWR)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise TargetMismatch(f"{path}: not a regular file")
        user = file_holder(fd)
        if user:
            raise TargetBusy(f"{path}: in use: {user}", remedy="Stop the machine or unmount it.")
        claim(fd, path)
        if status.st_size > size and not shrink:
            raise TargetMismatch(
                f"{path}: has {status.st_size} bytes, the disk has {size}",
                remedy="Name another file, or cut it to length yourself (truncate -s) when nothing in it is needed.",
            )
        if status.st_size != size:
            _resize(fd, path, size)
        return RawWriter(fd, path, size, fresh=False)
    except BaseException:
        os.close(fd)
        raise


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise TargetMismatch(f"{path}: exists already", remedy="Name a file that does not exist.") from None
    except OSError as error:
        raise TargetError(f"{path}: cannot open for writing: {error.strerror}") from error


def _resize(fd: int, path: str, size: int) -> None:
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise TargetError(
                f"{path}: its file system has no files of {size} bytes",
                remedy="Use a file system with larger files (XFS), a block device, or a sparse image format.",
            ) from error
        raise TargetError(f"{path}: cannot set its length to {size}: {error.strerror}") from error
