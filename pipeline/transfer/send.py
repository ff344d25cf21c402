"""The sending half of an export: chunks become packs, packs are stored, what is stored is indexed and journaled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from manifests.entry import ENTRY, FLAG_STORED, FLAG_UNREADABLE, ZERO_ID, PackTable, Positions, Rows
from manifests.pack import PackBuilder
from manifests.sealing import Sealing
from pipeline.progress import Counters
from pipeline.transfer.outlet import Outlet
from pipeline.transfer.scan import Place, Scanned
from pipeline.transfer.session import Stopwatch

JOURNAL_BYTES = 64 << 20
JOURNAL_SECONDS = 5.0
SENT_MEMORY = 1 << 15
"""How many chunks sent last are remembered by id: 2 GiB of disk in 12 MiB of memory."""
_OPEN_ENTRIES = 1 << 15


@dataclass(slots=True)
class _Batch:
    """Entries that become final when `future` (if any), the last pack they refer to, is stored."""

    future: Future[tuple[bytes, int]] | None
    ordinal: int
    size: int
    positions: Positions
    rows: Rows


Entries = Callable[[Positions, Rows], object]
"""Takes entries in ascending order of position, when their packs are stored."""


class Sender:
    """Takes Scanned in order of position. Used by one thread."""

    def __init__(
        self,
        outlet: Outlet,
        index: Entries,
        packs: PackTable,
        counters: Counters,
        *,
        lineage: bytes,
        chunk_size: int,
        sealing: Sealing,
        limit: int,
    ) -> None:
        self.sent: dict[bytes, Place] = {}
        self.stored: dict[int, int] = {}
        """Stored length of every pack of this session, by number."""
        self._outlet = outlet
        self._index = index
        self._packs = packs
        self._counters = counters
        self._lineage, self._chunk_size, self._sealing = lineage, chunk_size, sealing
        self._limit = limit
        self._first_own = len(packs)
        self._stopwatch = Stopwatch(JOURNAL_BYTES, JOURNAL_SECONDS)
        self._batches: deque[_Batch] = deque()
        self._in_flight = 0
        self._builder = PackBuilder(lineage, chunk_size, sealing)
        self._ordinal = -1
        self._columns: list[tuple[int, bytes, int, int, int, int, int]] = []
        self._unjournaled: list[tuple[Positions, Rows]] = []

    def add(self, scanned: Scanned) -> None:
        """Take the next piece; waits when more than `limit` bytes are on their way."""
        counters = self._counters
        columns = self._columns
        for found in scanned.found:
            # Equal chunks side by side, or at two workers at once, are noticed only here.
            reuse = found.reuse or self.sent.get(found.id)
            if found.payload is not None and reuse is None:
                if self._ordinal < 0:
                    self._ordinal = self._packs.reserve()
                flags = found.flags
                slot, offset, length = self._builder.add(found.position, found.id, found.payload, flags)
                columns.append((found.position, found.id, self._ordinal, offset, length, slot, flags))
                self._remember(found.id, (self._ordinal, offset, length, slot, flags & FLAG_STORED))
                counters.chunks_new += 1
                if self._builder.full:
                    self._close_pack()
                    columns = self._columns
            elif reuse is not None:
                pack, offset, length, slot, flags = reuse
                flags |= found.flags & FLAG_UNREADABLE
                columns.append((found.position, found.id, pack, offset, length, slot, flags))
                counters.deduplicated += self._chunk_size
            else:
                columns.append((found.position, ZERO_ID, 0, 0, 0, 0, found.flags))
        counters.read += scanned.read
        counters.unchanged += scanned.unchanged * self._chunk_size
        if len(columns) >= _OPEN_ENTRIES:
            self._close_pack()
        self._drain(wait_below=self._limit)

    def flush(self) -> None:
        """Send what is left and wait until everything is stored and indexed."""
        self._close_pack()
        self._drain(wait_below=0)

    def go_on(self, index: Entries) -> None:
        """After `flush`: what is taken from now on is entered in `index`, and its positions may begin anew."""
        self._index = index

    def _remember(self, chunk_id: bytes, place: Place) -> None:
        self.sent[chunk_id] = place
        if len(self.sent) > SENT_MEMORY:
            del self.sent[next(iter(self.sent))]

    def _close_pack(self) -> None:
        """Entries collected so far wait for the pack at hand, or for nothing when it is empty."""
        if not self._columns:
            return
        positions, ids, pack, offset, length, slot, flags = zip(*self._columns, strict=True)
        rows = np.empty(len(positions), ENTRY)
        rows["id"] = np.frombuffer(b"".join(ids), "<u8").reshape(-1, 4)
        rows["pack"], rows["offset"], rows["length"] = pack, offset, length
        rows["slot"], rows["flags"] = slot, flags
        future = None
        size = 0
        if len(self._builder):
            size = self._builder.size
            future = self._outlet.store(self._builder)
        self._in_flight += size
        self._batches.append(_Batch(future, self._ordinal, size, np.array(positions, "<u8"), rows))
        self._builder = PackBuilder(self._lineage, self._chunk_size, self._sealing)
        self._ordinal = -1
        self._columns = []

    def _drain(self, *, wait_below: int) -> None:
        """Index what is stored, in order; wait while more than `wait_below` bytes are on their way."""
        while self._batches:
            batch = self._batches[0]
            if batch.future is not None:
                if not batch.future.done() and self._in_flight <= wait_below:
                    break
                pack, stored = batch.future.result()
                self._packs.settle(batch.ordinal, pack)
                self.stored[batch.ordinal] = stored
                self._counters.sent += stored
            self._batches.popleft()
            self._in_flight -= batch.size
            self._index(batch.positions, batch.rows)
            self._note(batch)

    def _note(self, batch: _Batch) -> None:
        """Journal chunks of packs of this session when it is time."""
        if not self._outlet.journals:
            return
        mine = (batch.rows["pack"] >= self._first_own) & (batch.rows["length"] != 0)
        if mine.any():
            self._unjournaled.append((batch.positions[mine], batch.rows[mine]))
        if self._stopwatch.due(batch.size):
            self._write_journal()

    def give_up(self) -> None:
        """Journal what is stored by now, waiting for nothing: a later attempt need not send it again."""
        if not self._outlet.journals:
            return
        for batch in self._batches:
            if batch.future is not None:
                if not batch.future.done() or batch.future.cancelled() or batch.future.exception():
                    break
                pack, stored = batch.future.result()
                self._packs.settle(batch.ordinal, pack)
                self.stored[batch.ordinal] = stored
            mine = (batch.rows["pack"] >= self._first_own) & (batch.rows["length"] != 0)
            self._unjournaled.append((batch.positions[mine], batch.rows[mine]))
        self._write_journal()

    def _write_journal(self) -> None:
        if self._outlet.journals and any(len(p) for p, _ in self._unjournaled):
            positions = np.concatenate([p for p, _ in self._unjournaled])
            rows = np.concatenate([r for _, r in self._unjournaled])
            # After `go_on` positions begin anew; none comes twice.
            order = np.argsort(positions)
            positions, rows = positions[order], rows[order]
            for at in range(0, len(positions), 1 << 14):
                self._outlet.journal(
                    positions[at : at + (1 << 14)], rows[at : at + (1 << 14)], self._packs, self.stored
                )
            self._unjournaled = []
            self._stopwatch.reset()
