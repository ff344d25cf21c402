"""Reading a target back: what was written is what the point has."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from manifests.manifest import Disk
from manifests.sealing import Buffer
from manifests.tree import LEAF_POSITIONS
from pipeline.errors import VerifyError
from pipeline.transfer.index_file import IndexFile
from pipeline.transfer.index_reader import Block
from pipeline.transfer.prove import Hasher, differing, leaf_of, to_ranges, unproved
from pipeline.writers.base import BlockWriter


class ReadBack:
    """Of one target disk. `chunk_id` is the repository's; `progress` is told positions."""

    def __init__(
        self,
        disk: Disk,
        writer: BlockWriter,
        *,
        chunk_id: Callable[[Buffer], bytes],
        parallel: int,
        progress: Callable[[int], None],
    ) -> None:
        self._disk = disk
        self._writer = writer
        self._parallel = parallel
        self._progress = progress
        self._hasher = Hasher(writer, size=disk.size, chunk_size=disk.chunk_size, chunk_id=chunk_id)
        self._seen_leaves: set[int] = set()

    def whole(self, copy: IndexFile) -> None:
        """Read the target back and compare leaf by leaf with the index of the point. Raises VerifyError."""
        disk = self._disk
        self._writer.drop_cache()
        hasher = self._hasher
        bad: list[int] = []
        with ThreadPoolExecutor(self._parallel, "prove") as pool:
            ahead: deque[tuple[int, Future[bytes]]] = deque()

            def take() -> None:
                leaf, future = ahead.popleft()
                if future.result() != copy.leaf(leaf):
                    bad.extend(differing(hasher, copy, leaf, disk.positions))
                self._progress((leaf + 1) * LEAF_POSITIONS)

            for leaf, data in self._leaves_with_data():
                ahead.append((leaf, pool.submit(leaf_of, hasher, data, leaf, disk.positions)))
                if len(ahead) > 2 * self._parallel:
                    take()
            while ahead:
                take()
        holes = set(copy.nonzero_leaves()) - self._seen_leaves
        for leaf in sorted(holes):
            bad.extend(differing(hasher, copy, leaf, disk.positions))
        self._raise_if_bad(bad)

    def written(self, spans: list[Block]) -> None:
        """Flush, and read back only what these blocks are about; they are forgotten then. Raises VerifyError."""
        self._writer.flush()
        bad: list[int] = []
        for positions, rows in spans:
            bad += unproved(self._hasher, positions, rows)
        spans.clear()
        self._raise_if_bad(bad)

    def _leaves_with_data(self) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Leaves in which the target may hold something, and where in them."""
        size = self._disk.chunk_size
        self._seen_leaves.clear()
        current: list[tuple[int, int]] = []
        leaf = -1
        for extent in self._writer.extents(0, self._disk.size):
            if extent.zero:
                continue
            low, high = extent.offset // size, -(-(extent.offset + extent.length) // size)
            while low < high:
                number = low // LEAF_POSITIONS
                stop = min(high, (number + 1) * LEAF_POSITIONS)
                if number != leaf:
                    if current:
                        self._seen_leaves.add(leaf)
                        yield leaf, current
                    leaf, current = number, []
                if current and current[-1][1] >= low:
                    current[-1] = (current[-1][0], max(current[-1][1], stop))
                else:
                    current.append((low, stop))
                low = stop
        if current:
            self._seen_leaves.add(leaf)
            yield leaf, current

    def _raise_if_bad(self, bad: list[int]) -> None:
        if not bad:
            return
        ranges = to_ranges(sorted(bad), size=self._disk.size, chunk_size=self._disk.chunk_size)
        shown = ", ".join(f"{o}+{n}" for o, n in ranges[:5]) + (" …" if len(ranges) > 5 else "")
        raise VerifyError(
            f"{self._writer.name} does not read back what was written, at bytes {shown}",
            remedy="the disk or its connection is faulty, or somebody else wrote to it; run the same command again",
        )
