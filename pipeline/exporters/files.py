"""What regular files and block devices share when they are read: a settled state, holes, filling reads, bad sectors."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SourceChanged, SourceError, Unreadable
from pipeline.exporters.base import Extent

SECTOR = 512
_SETTLE_SECONDS = 0.02
"""Longer than two ticks of the coarsest clock that Linux stamps files with (HZ=100)."""

_REPORT_LIMIT = 65_536
"""A bad range is followed this far and no further: every failing read of a dying disk may cost seconds."""

_BAD_SECTOR = {errno.EIO, errno.ENODATA, errno.EREMOTEIO, errno.EILSEQ, errno.EBADMSG}
"""What a medium error looks like: EIO; ENODATA, EREMOTEIO and EILSEQ from the block layer's status codes
(linux/block/blk-core.c, blk_errors); EBADMSG from checksumming file systems."""


@dataclass(frozen=True, slots=True)
class FileState:
    """Which file it is and when it last changed. Equal states mean equal bytes (ctime cannot be set back)."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, source: int | Path) -> FileState:
        """State of an open descriptor or a path, waiting until a further write would show in the time stamps.

        Time stamps move with the kernel's tick: a write that follows the last one within the same tick leaves them
        as they are. So a file changed a moment ago is looked at again once that tick is over.
        """
        stat = _stat(source)
        age = time.time() - stat.st_ctime
        if 0 <= age < _SETTLE_SECONDS:
            time.sleep(_SETTLE_SECONDS - age)
            stat = _stat(source)
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def __str__(self) -> str:
        return f"{self.device}:{self.inode}:{self.size}:{self.mtime_ns}:{self.ctime_ns}"


def _stat(source: int | Path) -> os.stat_result:
    return os.fstat(source) if isinstance(source, int) else source.stat()


def hole_extents(fd: int, start: int, end: int) -> Iterator[Extent]:
    """Cover [start, end) with data and holes by SEEK_DATA and SEEK_HOLE; all data where the file system has neither.

    Both calls return their answer, so it does not matter that threads share the descriptor's position.
    """
    position = start
    while position < end:
        try:
            data = min(os.lseek(fd, position, os.SEEK_DATA), end)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here to the end of the file
                yield Extent(position, end - position, zero=True)
            else:
                yield Extent(position, end - position, zero=False)
            return
        if data > position:
            yield Extent(position, data - position, zero=True)
        if data >= end:
            return
        try:
            position = min(os.lseek(fd, data, os.SEEK_HOLE), end)
        except OSError:
            position = end
        yield Extent(data, position - data, zero=False)


def fill(fd: int, offset: int, buffer: memoryview, name: str, sector: int = SECTOR) -> None:
    """Fill `buffer` from `offset`; SourceChanged at the end of the file, Unreadable with the range that fails."""
    wanted = buffer.nbytes
    done = 0
    while done < wanted:
        part = buffer[done:] if done else buffer
        try:
            got = os.preadv(fd, [part], offset + done)
        except OSError as error:
            if error.errno not in _BAD_SECTOR:
                raise SourceError(f"{name}: cannot read at {offset + done}: {error.strerror}") from error
            bad, length = bad_range(lambda at, view: os.preadv(fd, [view], at), offset + done, part, sector)
            if length == 0:
                return
            raise unreadable(name, bad, length, error) from error
        if got == 0:
            raise SourceChanged(
                f"{name}: became shorter while it was read, it ends at {offset + done}",
                remedy="Stop what writes to it, or export a snapshot.",
            )
        done += got


def unreadable(name: str, offset: int, length: int, error: OSError) -> Unreadable:
    return Unreadable(
        f"{name}: cannot read {length} bytes at {offset}: {error.strerror}",
        offset=offset,
        length=length,
        remedy="The medium is damaged there. Look at the kernel log; copy the disk with ddrescue and export the copy.",
    )


def bad_range(
    read: Callable[[int, memoryview], object], offset: int, buffer: memoryview, sector: int = SECTOR
) -> tuple[int, int]:
    """(offset, length) of the first range inside `buffer` that cannot be read, to the sector.

    `read(offset, view)` raises OSError where it fails; a short read counts as readable. Halving finds the first bad
    sector in a logarithm of reads; then sectors are tried one by one, for at most 64 KiB, to find where it ends.
    Length 0: everything could be read on this second try, and is in the buffer.
    """

    def fails(start: int, end: int) -> bool:
        position = start
        while position < end:
            try:
                got = read(offset + position, buffer[position:end])
            except OSError:
                return True
            if not isinstance(got, int) or got <= 0:
                return False
            position += got
        return False

    # Edges lie on sector borders of the disk, not of the buffer.
    def edge(position: int) -> int:
        return (offset + position) // sector * sector - offset

    low, high = 0, buffer.nbytes
    while high - low > sector:
        middle = edge(low + (high - low) // 2)
        if middle <= low:
            middle = edge(low + sector)
        if middle <= low or middle >= high:
            break
        if fails(low, middle):
            high = middle
        else:
            low = middle
    if not fails(low, high):
        return offset + low, 0
    end = high
    while end < buffer.nbytes and end - low < _REPORT_LIMIT:
        step = min(edge(end + sector), buffer.nbytes)
        if step <= end or not fails(end, step):
            break
        end = step
    return offset + low, end - low
