"""The writer protocol: how blocks reach one target disk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from pipeline.exporters.base import Extent
from pipeline.store.base import Bytes


class BlockWriter(ABC):
    """One target disk, opened for writing. All methods but close may be called from several threads at once."""

    name: str
    size: int
    """Bytes that can be written. May be larger than the recovery point's disk: the tail must read as zeros."""
    fresh: bool
    """True when the disk was created by us just now and reads as zeros everywhere."""

    @abstractmethod
    def write(self, offset: int, buffers: Sequence[Bytes]) -> None:
        """Write `buffers` back to back from `offset`. Raises TargetFull, TargetError."""

    @abstractmethod
    def discard(self, offset: int, length: int) -> None:
        """Make the range read as zeros, giving space back where the target can."""

    @abstractmethod
    def flush(self) -> None:
        """Return when everything written before the call is on stable storage."""

    @abstractmethod
    def extents(self, start: int, end: int) -> Iterator[Extent]:
        """Like `Exporter.extents`: what is known to be zero without reading."""

    @abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Read back. Raises Unreadable."""

    def drop_cache(self) -> None:  # noqa: B027 - to do nothing is right where there is no cache
        """After a flush: let the next `read_into` come from the medium and not from memory, where that can be had."""

    @abstractmethod
    def guard(self) -> str:
        """What identifies this disk and its last change (for a file: device, inode, size, change times). Equal
        guards mean that nobody else wrote since; asked for after `flush`."""

    @abstractmethod
    def close(self) -> None:
        """Release the disk. Does not flush."""
