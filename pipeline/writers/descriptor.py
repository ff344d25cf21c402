"""What a file and a block device share when they are written: gathered writes, flush, read-back, exclusive use."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from collections.abc import Sequence

from pipeline.errors import TargetBusy, TargetError, TargetFull
from pipeline.exporters.files import fill
from pipeline.store.base import Bytes
from pipeline.writers.base import BlockWriter
from pipeline.writers.writeback import Writeback

_IOV_MAX = os.sysconf("SC_IOV_MAX")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_ZEROS = bytes(1024 * 1024)
_F_OFD_GETLK, _F_OFD_SETLK = 36, 37  # linux/include/uapi/asm-generic/fcntl.h
_PERMISSIONS, _REFUSALS = 100, 200
"""QEMU's image locks are bytes of the file: 100 + bit "I do this", 200 + bit "nobody else may do this"; bit 1 is
write, bit 3 resize (qemu/block/file-posix.c and include/block/block-common.h)."""
_WRITE, _RESIZE = 1, 3


class DescriptorWriter(BlockWriter):
    """A target behind one file descriptor. Subclasses open it, discard, and tell its guard."""

    _fd: int

    def _start(self, fd: int) -> None:
        self._fd = fd
        self._writeback = Writeback(fd)
        self._broken: TargetError | None = None
        self._state_lock = threading.Lock()
        # The kernel lets one writer at a time into a file, and the others spin for their turn: better to sleep here.
        self._write_lock = threading.Lock()

    def write(self, offset: int, buffers: Sequence[Bytes]) -> None:
        length = sum(memoryview(buffer).nbytes for buffer in buffers)
        self._check_range(offset, length)
        pending = list(buffers)
        position = offset
        while pending:
            batch = pending[:_IOV_MAX]
            try:
                with self._write_lock:
                    wrote = os.pwritev(self._fd, batch, position)
            except OSError as error:
                raise self._failed(error, position, offset + length - position) from error
            position += wrote
            used = 0
            for buffer in batch:
                size = memoryview(buffer).nbytes
                if size > wrote:
                    break
                wrote -= size
                used += 1
            del pending[:used]
            if wrote:
                pending[0] = memoryview(pending[0]).cast("B")[wrote:]
        self._writeback.wrote(offset, length)

    def flush(self) -> None:
        with self._state_lock:
            # After a failed fsync the kernel forgets the dirty pages, and the next fsync would lie.
            if self._broken is not None:
                raise self._broken
        try:
            self._sync()
        except OSError as error:
            failure = self._failed(error, 0, 0)
            with self._state_lock:
                self._broken = failure
            raise failure from error

    def _sync(self) -> None:
        os.fdatasync(self._fd)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._check_range(offset, buffer.nbytes)
        fill(self._fd, offset, buffer, self.name)

    def drop_cache(self) -> None:
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        if self._fd >= 0:
            self._writeback.close()
            os.close(self._fd)
            self._fd = -1

    def _write_zeros(self, offset: int, length: int) -> None:
        while length:
            part = min(length, 16 * len(_ZEROS))
            whole, rest = divmod(part, len(_ZEROS))
            buffers: list[Bytes] = [_ZEROS] * whole
            if rest:
                buffers.append(memoryview(_ZEROS)[:rest])
            self.write(offset, buffers)
            offset += part
            length -= part

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"{self.name}: {length} bytes at {offset} reach past the end at {self.size}")

    def _failed(self, error: OSError, offset: int, length: int) -> TargetError:
        if error.errno in _FULL:
            return TargetFull(
                f"{self.name}: no room for {length} more bytes at {offset}: {error.strerror}"
                if length
                else f"{self.name}: no room to store what was written: {error.strerror}",
                remedy="Make room there (or raise the quota) and start again: what was flushed is not written twice.",
            )
        where = f"cannot write {length} bytes at {offset}" if length else "cannot store what was written"
        return TargetError(
            f"{self.name}: {where}: {error.strerror}", remedy="Look at the kernel log of the machine that writes."
        )


def claim(fd: int, name: str) -> None:
    """Keep other restores and QEMU off the target for as long as `fd` is open; TargetBusy when one has it."""
    busy = TargetBusy(
        f"{name}: another program writes to it (a running machine or another restore)",
        remedy="Stop the machine or wait for the other restore.",
    )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None
    except OSError:
        pass  # a file system without locks
    try:
        for bit in (_WRITE, _RESIZE):
            for base in (_PERMISSIONS, _REFUSALS):
                fcntl.fcntl(fd, _F_OFD_SETLK, _lock(fcntl.F_RDLCK, base + bit))
        for bit in (_WRITE, _RESIZE):
            for base in (_PERMISSIONS, _REFUSALS):
                answer = fcntl.fcntl(fd, _F_OFD_GETLK, _lock(fcntl.F_WRLCK, base + bit))
                if struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK:
                    raise busy
    except BlockingIOError:
        raise busy from None
    except OSError:
        pass  # a file system without byte locks


def _lock(kind: int, byte: int) -> bytes:
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0)
