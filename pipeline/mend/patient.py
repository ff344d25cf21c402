"""Reading a disk's index as far as it can be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from manifests.entry import PackTable
from manifests.manifest import Disk, Segment, Tier
from manifests.names import page_key
from manifests.page import PAGE_POSITIONS
from pipeline.errors import FormatError
from pipeline.repository import Repository
from pipeline.transfer.index_reader import Block, IndexReader, merge


class PatientReader(IndexReader):
    """An IndexReader that goes on behind index objects that are gone or damaged, and notes what they covered.

    Where a page is lost the positions that no tier names are not given; where a segment is lost those of the tiers
    below, or the page, are: what `lost` names is not sure. Only a lost page directory still raises CorruptObject.
    """

    def __init__(self, repository: Repository, disk: Disk, packs: PackTable | None = None) -> None:
        super().__init__(repository, disk, packs)
        self.lost: dict[str, tuple[int, int]] = {}
        """(first, end) positions that a lost object spoke of, by its key."""
        self.lost_pages: set[int] = set()

    def _fetch_page(self, number: int) -> bytes | None:
        try:
            return super()._fetch_page(number)
        except FormatError:
            first = number * PAGE_POSITIONS
            self.lost[page_key(self.directory[number])] = first, first + self.directory.size_of(number)
            self.lost_pages.add(number)
            return None

    def segments(self, tier: Tier) -> Sequence[Segment]:
        try:
            return super().segments(tier)
        except FormatError:
            self.lost[page_key(bytes.fromhex(tier.table or ""))] = 0, self.disk.positions
            return ()

    def blocks(self, tiers: Sequence[Tier]) -> Iterator[Block]:
        return merge([self._readable(tier) for tier in tiers])

    def _readable(self, tier: Tier) -> Iterator[Block]:
        for segment in self.segments(tier):
            try:
                block = self.segment(segment)
            except FormatError:
                self.lost[page_key(bytes.fromhex(segment.id))] = segment.first, segment.last + 1
                continue
            yield block
