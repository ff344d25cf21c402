"""The exporter protocol: how the blocks of one disk are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes from `offset`; `zero` when they are known to read as zeros without reading them."""

    offset: int
    length: int
    zero: bool


class Exporter(ABC):
    """One disk, opened read-only. All methods may be called from several threads at once."""

    name: str
    """What the user called it, for messages."""
    size: int
    """Bytes, exact; need not be a multiple of anything."""
    sector_size: int
    """Logical sector size in bytes (512 where unknown)."""
    identity: str | None
    """Two opens with the same identity read the same bytes (for a file: device, inode, size, change times).
    None where the source can't promise that; then a resumed export hashes everything again."""
    live: bool = False
    """Somebody may write to the disk while it is read (only with the user's consent): the copy is torn."""
    read_threads: int = 1
    """How many threads may usefully call `read_into` at once."""

    @abstractmethod
    def extents(self, start: int, end: int) -> Iterator[Extent]:
        """Cover [start, end) exactly, in order, without gaps; adjacent extents may have the same `zero`."""

    @abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` (never reaching past `size`) from `offset`.

        Raises Unreadable with the exact offset and length that fail (sector granularity at best), or SourceChanged when
        the disk became shorter.
        """

    def change_maps(self) -> list[str]:
        """Names of the changed-block maps the source offers (for NBD: QEMU dirty bitmaps)."""
        return []

    def broken_change_maps(self) -> dict[str, str]:
        """Names of those that are there and cannot be used, each with the reason."""
        return {}

    def changed_extents(self, name: str) -> Iterator[tuple[int, int]]:
        """(offset, length) of every range marked changed in map `name`, in order."""
        raise KeyError(name)

    @abstractmethod
    def check_unchanged(self) -> None:
        """Raise SourceChanged when size (or, where it can be known, identity) is not what it was at open."""

    @abstractmethod
    def close(self) -> None:
        """Release the disk and stop what was started for it."""
