"""The recovery point's side of a served disk: from the stage, from memory, or fetched; each chunk once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from manifests.entry import ID_SIZE, PackTable, Positions, Rows, ids_of, is_zero
from manifests.manifest import Disk
from manifests.page import PAGE_POSITIONS
from pipeline.errors import CorruptObject, FailbackError, SourceError, TargetError
from pipeline.exporters.base import Extent
from pipeline.logs import logger
from pipeline.repository import Repository
from pipeline.serve.ahead import ReadAhead
from pipeline.serve.cache import ChunkCache
from pipeline.serve.index import LazyIndex
from pipeline.serve.local import LocalStage
from pipeline.serve.traffic import Traffic
from pipeline.transfer.fetch import Fetcher, PackJob, by_pack

FIRST = 512 << 10
"""Bytes that come with a chunk the guest misses: about as long on the line (50 MB/s) as the request is on its way."""
LONGEST = 8 << 20
"""Bytes read ahead of a sequential reader at most."""
PIECE = 1 << 20
"""Stored bytes asked for at once ahead of a reader: what a fetch that the guest waits for may have to wait for."""
AHEAD_LIMIT = 32 << 20
"""Bytes read ahead that may be on their way, for all readers together."""
_GUEST_FETCHES = 8
_AHEAD_FETCHES = 4

UNKNOWN, ZERO, CANDIDATE, PRESENT = range(4)
"""What is known of a position: nothing; the chunk is zero; the stage may hold it; the stage holds it."""


@dataclass(slots=True)
class Counts:
    """For people and tests; read without a lock."""

    fetched: int = 0
    """Stored bytes got from the store."""
    misses: int = 0
    """Reads of the guest that had to wait for the store."""
    errors: int = 0
    """Chunks that could not be had, each time they were asked for."""


class Chunks:
    """Reads of the recovery point. Safe for many threads.

    A chunk is given out only after its id was checked: when it comes from the store, and when it is read from the
    stage for the first time in this process. Several readers of one chunk wait for one fetch.
    """

    def __init__(
        self, repository: Repository, disk: Disk, *, cache: ChunkCache, traffic: Traffic, local: LocalStage | None
    ) -> None:
        self.disk = disk
        self.cache = cache
        self.traffic = traffic
        self.local = local
        self.counts = Counts()
        self.index = LazyIndex(repository, disk)
        self._repository = repository
        self._size = disk.chunk_size
        self._complete = local is not None and local.complete
        self.known = bytearray(disk.positions)
        """One of UNKNOWN … PRESENT for each position."""
        self._known = np.frombuffer(self.known, np.uint8)
        self._zeros_marked = bytearray(-(-disk.positions // PAGE_POSITIONS))
        self._flights: dict[int, Future[bytes]] = {}
        self._lock = threading.Lock()
        self._fetchers = threading.local()
        self._guest = ThreadPoolExecutor(_GUEST_FETCHES, "fetch")
        self._background = ThreadPoolExecutor(_AHEAD_FETCHES, "ahead")
        self._ahead_bytes = 0
        longest = LONGEST if local is not None else min(LONGEST, cache.limit // 8)
        self._ahead = ReadAhead(first=min(FIRST, longest) // self._size, longest=longest // self._size)
        self._reported: set[int] = set()
        self._frozen = False
        self.full: TargetError | None = None
        """Why the stage takes no more chunks."""
        if local is not None and not self._complete:
            self._take_over(local)

    def _take_over(self, local: LocalStage) -> None:
        for first in range(0, self.disk.positions, 1 << 20):
            positions = np.arange(first, min(first + (1 << 20), self.disk.positions), dtype="<u8")
            self._known[first : first + len(positions)][local.held(positions)] = CANDIDATE

    # -- reading ---------------------------------------------------------------------------------------------------

    def try_read(self, start: int, view: memoryview) -> bool:
        """Like `read_into` when nothing has to be fetched; else False, and `view` holds nothing of use."""
        if self._local(start, view):
            return False
        self._look_ahead(start, view.nbytes)
        return True

    def read_into(self, start: int, view: memoryview) -> None:
        """Raises CorruptObject, StoreError, SourceError."""
        missing = self._local(start, view)
        if missing:
            with self.traffic.guest():
                self.counts.misses += 1
                while missing:
                    missing = self._obtain(missing, start, view)
        self._look_ahead(start, view.nbytes)

    def extents(self, start: int, end: int) -> Iterator[Extent]:
        """What reads as zeros. Raises as `read_into` does: pages of the index may have to be read."""
        if self._complete and self.local is not None:
            yield from self.local.writer.extents(start, end)
            return
        at = start
        while at < end:
            position = at // self._size
            self._mark_zeros(position // PAGE_POSITIONS)
            stop = min((position // PAGE_POSITIONS + 1) * PAGE_POSITIONS * self._size, end)
            zero = self.known[position] == ZERO
            last = position + 1
            while last * self._size < stop and (self.known[last] == ZERO) == zero:
                last += 1
            stop = min(last * self._size, stop)
            yield Extent(at, stop - at, zero)
            at = stop

    def _local(self, start: int, view: memoryview) -> list[int]:
        """Fill what needs no fetch; returns the positions that do."""
        if self._complete and self.local is not None:
            self.local.read_into(start, view)
            return []
        size, known = self._size, self.known
        end = start + view.nbytes
        missing: list[int] = []
        position, last = start // size, (end - 1) // size
        while position <= last:
            low = max(position * size, start)
            if known[position] == PRESENT and self.local is not None:
                while position < last and known[position + 1] == PRESENT:
                    position += 1
                high = min((position + 1) * size, end)
                try:
                    self.local.read_into(low, view[low - start : high - start])
                except SourceError as error:
                    logger().error("%s; it is fetched again", error.message)
                    lost = range(low // size, position + 1)
                    missing += lost
                    with self._lock:
                        known[lost.start : lost.stop] = bytes(len(lost))
            elif known[position] == ZERO:
                high = min((position + 1) * size, end)
                view[low - start : high - start] = bytes(high - low)
            else:
                chunk = self.cache.get(position)
                if chunk is None:
                    missing.append(position)
                else:
                    self._copy(position, chunk, start, view)
            position += 1
        return missing

    def _copy(self, position: int, chunk: bytes, start: int, view: memoryview) -> None:
        base = position * self._size
        low, high = max(base, start), min(base + self._size, start + view.nbytes)
        view[low - start : high - start] = memoryview(chunk)[low - base : high - base]

    def _obtain(self, missing: list[int], start: int, view: memoryview) -> list[int]:
        """Fetch `missing` and fill their parts of `view`; returns what slipped away and must be asked for again."""
        rows = self._settle(np.array(missing, "<u8"))
        flights, mine = self._claim(missing)
        try:
            wanted, rows = self._with_neighbours(np.array(missing, "<u8"), rows, mine)
            jobs = by_pack(wanted, rows)
            for job in jobs[1:]:
                self._guest.submit(self.fetch, job, self.index.packs)
            if jobs:
                self.fetch(jobs[0], self.index.packs)
        except BaseException as error:
            self._fail(mine, error)
            raise
        again = []
        for position in missing:
            flight = flights.get(position)
            if flight is not None:
                self._copy(position, flight.result(), start, view)
            else:
                base = position * self._size
                low, high = max(base, start), min(base + self._size, start + view.nbytes)
                again += self._local(low, view[low - start : high - start])
        return again

    def _with_neighbours(self, positions: Positions, rows: Rows, mine: list[int]) -> tuple[Positions, Rows]:
        """Those of ascending `positions` that are `mine`, and for a new reader what lies behind them in their pack.

        The neighbours are claimed and added to `mine`.
        """
        held = np.isin(positions, np.array(mine, "<u8"))
        wanted, wanted_rows = positions[held], rows[held]
        first, last = int(positions[0]), int(positions[-1])
        more = self._ahead.missed(first, last + 1)
        page = last // PAGE_POSITIONS
        end = min(last + 1 + more, (page + 1) * PAGE_POSITIONS, self.disk.positions)
        known = self.index.known(page)
        if not len(wanted) or end <= last + 1 or known is None:
            return wanted, wanted_rows
        near = known[last + 1 - page * PAGE_POSITIONS : end - page * PAGE_POSITIONS]
        at = wanted_rows[-1]
        distance = near["offset"].astype(np.int64) - int(at["offset"])
        fits = (near["pack"] == at["pack"]) & (distance > 0) & (distance <= FIRST) & ~is_zero(near)
        _flights, claimed = self._claim((np.flatnonzero(fits) + last + 1).tolist(), only_unknown=True)
        mine += claimed
        chosen = np.array(claimed, "<u8")
        rows_of = known[(chosen - np.uint64(page * PAGE_POSITIONS)).astype(np.intp)]
        return np.concatenate([wanted, chosen]), np.concatenate([wanted_rows, rows_of])

    def _look_ahead(self, start: int, length: int) -> None:
        if self._complete or not length:
            return
        size = self._size
        due = self._ahead.read(start // size, (start + length - 1) // size + 1)
        if due is None:
            return
        first, end = due[0], min(due[1], self.disk.positions)
        length = (end - first) * size
        with self._lock:
            if first >= end or self._ahead_bytes + length > AHEAD_LIMIT:
                return
            self._ahead_bytes += length
        try:
            self._background.submit(self._fetch_ahead, first, end)
        except RuntimeError:
            self._came(length)  # closed

    def _fetch_ahead(self, first: int, end: int) -> None:
        """Errors are those of whoever asks for the chunks."""
        length = (end - first) * self._size
        mine: list[int] = []
        with self.traffic.guest():
            try:
                positions = np.arange(first, end, dtype="<u8")
                rows = self._settle(positions)
                _flights, mine = self._claim(positions.tolist(), only_unknown=True)
                held = np.isin(positions, np.array(mine, "<u8"))
                pieces = [piece for job in by_pack(positions[held], rows[held]) for piece in split(job, PIECE)]
                for piece in pieces[1:]:
                    self._background.submit(self._fetch_piece, piece)
                if pieces:
                    self.fetch(pieces[0], self.index.packs)
            except (FailbackError, RuntimeError) as error:
                self._fail(mine, error)
            finally:
                self._came(length)

    def _fetch_piece(self, piece: PackJob) -> None:
        with self.traffic.guest():
            self.fetch(piece, self.index.packs)

    def _came(self, length: int) -> None:
        with self._lock:
            self._ahead_bytes -= length

    # -- what is known ---------------------------------------------------------------------------------------------

    def _settle(self, positions: Positions) -> Rows:
        """Entries of ascending positions; zeros are noted, and candidates looked at."""
        for page in np.unique(positions // PAGE_POSITIONS).tolist():
            self._mark_zeros(page)
        rows = self.index.rows(positions)
        self.check(positions, rows)
        return rows

    def _mark_zeros(self, page: int) -> None:
        if self._zeros_marked[page]:
            return
        rows = self.index.page(page)
        first = page * PAGE_POSITIONS
        part = self._known[first : first + len(rows)]
        part[is_zero(rows) & (part != PRESENT)] = ZERO
        self._zeros_marked[page] = 1

    def check(self, positions: Positions, rows: Rows) -> None:
        """Read what the stage may hold of these (no zeros among those) and find out."""
        at = np.flatnonzero(self._known[positions.astype(np.intp)] == CANDIDATE)
        if not len(at) or self.local is None:
            return
        ids = ids_of(rows)
        for i in at.tolist():
            position = int(positions[i])
            chunk_id = ids[i * ID_SIZE : (i + 1) * ID_SIZE]
            right = self.local.holds(position, chunk_id, self._repository.chunk_id)
            with self._lock:
                if self.known[position] == CANDIDATE:
                    self.known[position] = PRESENT if right else UNKNOWN

    def missing(self, positions: Positions) -> np.ndarray:
        """Which of the positions are neither in the stage nor believed to be there."""
        return self._known[positions.astype(np.intp)] < CANDIDATE

    def distrust(self) -> None:
        """The stage does not read back what was written: look at every chunk again."""
        with self._lock:
            self._known[self._known == PRESENT] = CANDIDATE

    def freeze(self, check: Callable[[], None]) -> None:
        """Returns when nothing is written to the stage any more, until `thaw`; what is fetched stays in memory.

        `check` is called while fetches are waited for, and may raise.
        """
        self._frozen = True
        with self._lock:
            waiting = set(self._flights.values())
        while waiting:
            check()
            waiting = wait(waiting, timeout=0.5).not_done

    def thaw(self) -> None:
        self._frozen = False

    def completed(self) -> None:
        """The stage is proved to equal the point: everything is read from it."""
        self._complete = True
        self.cache.clear()

    # -- fetching --------------------------------------------------------------------------------------------------

    def _claim(
        self, positions: Sequence[int], *, only_unknown: bool = False
    ) -> tuple[dict[int, Future[bytes]], list[int]]:
        """(the fetch to wait for by position, the positions that the caller now has to fetch). Positions that are
        there by now have none. `only_unknown`: leave out what is being fetched, or may be in the stage."""
        flights: dict[int, Future[bytes]] = {}
        mine = []
        with self._lock:
            for position in positions:
                known = self.known[position]
                if known in (PRESENT, ZERO) or position in self.cache:
                    continue
                flight = self._flights.get(position)
                if only_unknown and (flight is not None or known == CANDIDATE):
                    continue
                if flight is None:
                    flight = self._flights[position] = Future()
                    mine.append(position)
                flights[position] = flight
        return flights, mine

    def claim(self, job: PackJob) -> PackJob | None:
        """What is left of a job when what is there, or being fetched, is taken out. The caller must `fetch` it."""
        _flights, mine = self._claim(job.positions.tolist(), only_unknown=True)
        if not mine:
            return None
        held = np.isin(job.positions, np.array(mine, "<u8"))
        return PackJob(job.pack, job.positions[held], job.rows[held])

    def fetch(self, job: PackJob, packs: PackTable) -> list[BaseException]:
        """Fetch claimed chunks, whose packs are numbered by `packs`; whoever waits for them gets them, or the error.

        Never raises. One damaged chunk does not take its neighbours along: they are tried one by one.
        """
        fetcher = self._fetcher(packs)
        left = set(job.positions.tolist())
        before = fetcher.fetched
        try:
            for position, plain in fetcher.chunks(job):
                self._arrived(position, plain)
                left.discard(position)
        except CorruptObject as error:
            if len(job.positions) == 1:
                return self._fail(left, error)
            errors: list[BaseException] = []
            for i, position in enumerate(job.positions.tolist()):
                if position in left:
                    errors += self.fetch(PackJob(job.pack, job.positions[i : i + 1], job.rows[i : i + 1]), packs)
            return errors
        except BaseException as error:  # noqa: BLE001 - it is handed to whoever waits
            return self._fail(left, error)
        finally:
            with self._lock:
                self.counts.fetched += fetcher.fetched - before
        return []

    def _fetcher(self, packs: PackTable) -> Fetcher:
        kept: dict[int, Fetcher] | None = getattr(self._fetchers, "kept", None)
        if kept is None:
            kept = self._fetchers.kept = {}
        if id(packs) not in kept:
            kept[id(packs)] = Fetcher(self._repository, self._size, packs)
        return kept[id(packs)]

    def _arrived(self, position: int, plain: bytes | memoryview) -> None:
        # A view would keep all that came with it in memory.
        chunk = plain if isinstance(plain, bytes) else bytes(plain)
        stored = self._keep(position, chunk)
        if not stored:
            self.cache.put(position, chunk)
        with self._lock:
            if stored:
                self.known[position] = PRESENT
            flight = self._flights.pop(position, None)
        if flight is not None:
            flight.set_result(chunk)

    def _keep(self, position: int, chunk: bytes) -> bool:
        if self.local is None or self.full is not None or self._frozen:
            return False
        try:
            self.local.keep(position, chunk)
        except TargetError as error:
            self.full = error
            logger().error("%s (%s); the guest goes on, its disk is not filled", error.message, error.remedy)
            return False
        return True

    def _fail(self, positions: set[int] | list[int], error: BaseException) -> list[BaseException]:
        with self._lock:
            flights = [flight for p in positions if (flight := self._flights.pop(p, None)) is not None]
            self.counts.errors += len(flights)
            fresh = not self._reported.issuperset(positions)
            self._reported.update(positions)
        if fresh and flights:
            first = min(positions) * self._size
            logger().error("disk %d: what belongs at byte %d cannot be had: %s", self.disk.number, first, error)
        for flight in flights:
            flight.set_exception(error)
        return [error]

    def close(self) -> None:
        """Nobody waits for a chunk any more. Returns when fetches that are under way have come to their end."""
        self._background.shutdown(wait=False, cancel_futures=True)
        self._guest.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            waiting = list(self._flights)
        self._fail(waiting, Closed("the server ends"))
        self._background.shutdown()
        self._guest.shutdown()


class Closed(Exception):
    """Whoever still waits for a chunk when the server ends."""


def split(job: PackJob, limit: int) -> Iterator[PackJob]:
    """The job in parts of about `limit` stored bytes."""
    ends = np.cumsum(job.rows["length"].astype(np.int64))
    start = 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        end = max(int(np.searchsorted(ends, before + limit, side="right")), start + 1)
        yield PackJob(job.pack, job.positions[start:end], job.rows[start:end])
        start = end
