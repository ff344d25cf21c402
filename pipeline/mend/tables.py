"""What all packs of a repository say they hold: positions and chunk ids, by lineage."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from manifests.entry import ENTRY, PackTable, Positions, Rows
from manifests.pack import PackTableOfContents
from pipeline.errors import FormatError
from pipeline.repository import Repository
from pipeline.transfer.pack_tables import pack_table


@dataclass(slots=True)
class Stored:
    """Every chunk that some pack holds for a disk: by position, newest pack first. Chunks of zeros are in no pack, nor
    are chunks that the disk shares with another position, disk or point."""

    chunk_size: int
    positions: Positions
    rows: Rows
    times: NDArray[np.float64]
    """When the pack was stored: seconds since 1970 by the store's clock."""


@dataclass(slots=True)
class Tables:
    """Of a whole repository: about 64 bytes of memory for each chunk."""

    packs: PackTable = field(default_factory=PackTable)
    by_lineage: dict[str, Stored] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Packs whose tables could not be read."""


def read_tables(
    repository: Repository, *, lineage: str = "", parallel: int = 6, tick: Callable[[], object] = lambda: None
) -> Tables:
    """Of all packs, or those of one lineage: one request each, or two. Raises StoreError."""
    tables = Tables()
    parts: dict[tuple[str, int], list[tuple[Positions, Rows, float]]] = {}
    with ThreadPoolExecutor(parallel, "tables") as pool:
        ahead: deque[tuple[bytes, float, Future[PackTableOfContents]]] = deque()

        def take() -> None:
            pack, modified, future = ahead.popleft()
            tick()
            try:
                table = future.result()
                rows = _rows(table)
            except FormatError as error:
                tables.problems.append(error.message)
                return
            if lineage in ("", table.lineage.hex()):
                rows["pack"] = tables.packs.ordinal(pack)
                key = table.lineage.hex(), table.chunk_size
                parts.setdefault(key, []).append((table.positions, rows, modified))

        for info in repository.store.list("packs/"):
            try:
                pack = bytes.fromhex(info.key[-64:])
            except ValueError:
                continue
            ahead.append((pack, info.modified.timestamp(), pool.submit(pack_table, repository, pack, info.size)))
            if len(ahead) > 4 * parallel:
                take()
        while ahead:
            take()
    for (found, chunk_size), blocks in parts.items():
        positions = np.concatenate([p for p, _, _ in blocks])
        rows = np.concatenate([r for _, r, _ in blocks])
        times = np.concatenate([np.full(len(p), t) for p, _, t in blocks])
        order = np.lexsort((-times, positions))
        tables.by_lineage[found] = Stored(chunk_size, positions[order], rows[order], times[order])
    return tables


def _rows(table: PackTableOfContents) -> Rows:
    rows = np.zeros(len(table.ids), ENTRY)
    rows["id"] = np.frombuffer(b"".join(table.ids), "<u8").reshape(-1, 4)
    rows["offset"], rows["length"], rows["flags"] = table.offsets, table.lengths, table.flags
    rows["slot"] = np.arange(len(rows))
    return rows
