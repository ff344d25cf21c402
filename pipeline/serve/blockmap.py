"""Which blocks the guest wrote, kept so that it survives our death at once, and the machine's after a flush.

    live       one bit a block, written right after the block: in the page cache, so it outlives a killed process
    durable    the same bits, written only after the blocks themselves were synchronised
    boot       the boot id of the kernel in whose page cache `live` is; under another kernel `live` means nothing,
               because its pages may have reached the disk before those of the blocks they speak of

Bits are only ever set. So any mixture of old and new sectors of `durable`, as a power cut may leave it, names only
blocks that are stored: the bits of a flush that was not yet acknowledged.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.exporters.files import hole_extents
from pipeline.serve.bitmap import Bitmap

_PAGE = 4096
"""Bytes of the map that are synchronised together."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class BlockMap:
    """Open map of `blocks` bits. Changed under the caller's lock; `store` may run beside changes."""

    def __init__(self, folder: Path, blocks: int) -> None:
        """Raises OSError."""
        self.bits = Bitmap(blocks)
        self._dirty: set[int] = set()
        self._live = -1
        self._durable = os.open(folder / "durable", os.O_RDWR | os.O_CLOEXEC)
        try:
            pages = self._load(self._durable)
            boot = _BOOT_ID.read_bytes()
            if _read(folder / "boot") == boot:
                self._live = os.open(folder / "live", os.O_RDWR | os.O_CLOEXEC)
                # Whoever wrote them may have died before a flush.
                self._dirty = self._load(self._live)
            else:
                self._live = self._new_live(folder, pages)
                (folder / "boot.new").write_bytes(boot)
                (folder / "boot.new").replace(folder / "boot")
        except BaseException:
            self.close()
            raise

    @staticmethod
    def create(folder: Path, blocks: int) -> None:
        """An empty map in a new folder, synchronised."""
        with (folder / "durable").open("xb") as file:
            file.truncate(-(-blocks // 8))
            os.fsync(file.fileno())

    def mark(self, first: int, end: int) -> None:
        """The blocks of [first, end) are written. Raises OSError; then none of them is noted."""
        changed = self.bits.with_set(first, end)
        if changed is None:
            return
        at, data = changed
        view = memoryview(data)
        done = 0
        while done < len(data):
            done += os.pwrite(self._live, view[done:], at + done)
        self.bits.bytes[at : at + len(data)] = data
        self._dirty.update(range(at // _PAGE, (at + len(data) - 1) // _PAGE + 1))

    def changes(self) -> dict[int, bytes]:
        """What `store` has to make durable: call it before the blocks are synchronised."""
        pages, self._dirty = self._dirty, set()
        return {page: self._page(page) for page in sorted(pages)}

    def store(self, changes: dict[int, bytes]) -> None:
        """Returns when the changes are on stable storage. Raises OSError."""
        if not changes:
            return
        for page, data in changes.items():
            os.pwrite(self._durable, data, page * _PAGE)
        os.fdatasync(self._durable)

    def close(self) -> None:
        for fd in (self._live, self._durable):
            if fd >= 0:
                os.close(fd)
        self._live = self._durable = -1

    def _page(self, page: int) -> bytes:
        return bytes(self.bits.bytes[page * _PAGE : (page + 1) * _PAGE])

    def _load(self, fd: int) -> set[int]:
        """Take over the bits of a sparse file (`live` has all that `durable` has); returns the pages that it has."""
        size = len(self.bits.bytes)
        view = memoryview(self.bits.bytes)
        pages: set[int] = set()
        for extent in hole_extents(fd, 0, min(os.fstat(fd).st_size, size)):
            if not extent.zero:
                end = extent.offset + extent.length
                os.preadv(fd, [view[extent.offset : end]], extent.offset)
                pages.update(range(extent.offset // _PAGE, -(-end // _PAGE)))
        return pages

    def _new_live(self, folder: Path, pages: set[int]) -> int:
        path = folder / "live.new"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, len(self.bits.bytes))
            for page in pages:
                os.pwrite(fd, self._page(page), page * _PAGE)
            path.replace(folder / "live")
        except BaseException:
            os.close(fd)
            raise
        return fd


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
