"""Filling the stage behind the guest's back, and proving it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from manifests.entry import PackTable
from pipeline.errors import CorruptObject, FailbackError, StoreError, TargetError, VerifyError
from pipeline.logs import logger
from pipeline.progress import Counters
from pipeline.repository import Repository
from pipeline.serve.chunks import Chunks, split
from pipeline.serve.local import LocalStage
from pipeline.serve.traffic import Traffic
from pipeline.transfer.fetch import PackJob, by_pack
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.restore import DiskRestore

_WINDOW_ENTRIES = 1 << 14
"""Chunks that are planned at once: a small part of the index is read between two looks at the guest."""
_CHECKED = 256
"""Chunks of the stage that are looked at between two looks at the guest."""
SMALL = 512 << 10
"""Stored bytes asked for at once, and by one thread only, while the guest may come back any moment."""
LARGE = 4 << 20
MOST = 64 << 20
"""Stored bytes on their way at most."""
TARGET_SECONDS = 0.15
"""How long a request of ours may take: a guest that comes back waits behind what is on the line."""
_RETRY_SECONDS = 10.0
_MOST_FAILURES = 3
"""Proofs that failed until the target counts as faulty."""


class _Stopped(Exception):
    """The server ends."""


class Line:
    """How many bytes may be on their way, by how long answers take: the line is filled and no queue is built up.

    (The idea of LEDBAT, RFC 6817: a transfer that yields measures the delay that it causes.)
    """

    def __init__(self) -> None:
        self.window = float(2 * SMALL)

    def answered(self, size: int, seconds: float, *, used: bool) -> None:
        """`used`: as much was under way as might be. Answers on an idle line say nothing about a full one."""
        if seconds > TARGET_SECONDS:
            self.window = max(self.window * max(TARGET_SECONDS / seconds, 0.5), float(SMALL))
        elif used:
            self.window = min(self.window + size / 2, float(MOST))


class Fill:
    """A thread that fills the stage, then proves it as a restore does. It yields to the guest."""

    def __init__(
        self, repository: Repository, chunks: Chunks, local: LocalStage, traffic: Traffic, *, parallel: int
    ) -> None:
        self._repository = repository
        self._chunks = chunks
        self._local = local
        self._traffic = traffic
        self._parallel = parallel
        self._line = Line()
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._under_way = 0
        self._damage: BaseException | None = None
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name="fill", daemon=True)
        self.phase = "filled" if local.complete else "filling"
        """filling, proving, filled, or failed."""
        self.done = 0
        """Bytes of the disk gone through in this phase."""
        self.problem = ""
        """Why it failed, or waits."""
        self.finished = threading.Event()
        """It will do nothing more."""

    def start(self) -> None:
        if self.phase == "filled":
            self._chunks.completed()
            self.done = self._local.disk.size
            self.finished.set()
        else:
            self._thread.start()

    def stop(self) -> None:
        """Returns when the thread has ended; what was fetched is noted. Raises TargetError."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        if self.phase != "filled":
            self._local.acknowledge(now=True)

    def _run(self) -> None:
        try:
            while not self._attempt():
                self._stop.wait(_RETRY_SECONDS)
        except _Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - the guest goes on without it
            self._fail(error)
        finally:
            self.finished.set()

    def _attempt(self) -> bool:
        """Whether the stage is filled and proved; False when it is worth another try."""
        try:
            self.phase, self.done = "filling", 0
            self._fetch_all()
            self._prove()
        except StoreError as error:
            if self._stop.is_set():
                raise _Stopped from None
            logger().warning("filling %s waits: %s", self._local.path, error.message)
            self.problem = error.message
            return False
        except VerifyError as error:
            self._failures += 1
            if self._failures >= _MOST_FAILURES:
                raise
            logger().error("%s; it is looked at again", error.message)
            self.problem = error.message
            self._local.pure = False
            self._chunks.distrust()
            return False
        self.problem = ""
        return True

    def _fail(self, error: Exception) -> None:
        self.phase = "failed"
        self.problem = error.message if isinstance(error, FailbackError) else f"{type(error).__name__}: {error}"
        logger().error("%s is not filled: %s", self._local.path, self.problem, exc_info=error)

    # -- filling ---------------------------------------------------------------------------------------------------

    def _fetch_all(self) -> None:
        packs = PackTable()
        reader = IndexReader(self._repository, self._local.disk, packs)
        self._damage = None
        # What was claimed is fetched in any case, or whoever waits for it would wait for ever.
        with ThreadPoolExecutor(self._parallel, "fill") as pool:
            for positions, rows in reader.windows(entries=_WINDOW_ENTRIES):
                for first, end in pairwise([*range(0, len(positions), _CHECKED), len(positions)]):
                    if not self._local.pure:
                        self._yield()
                        self._chunks.check(positions[first:end], rows[first:end])
                wanted = self._chunks.missing(positions)
                for job in by_pack(positions[wanted], rows[wanted]):
                    self._fetch(pool, packs, job)
                self.done = min((int(positions[-1]) + 1) * self._local.disk.chunk_size, self._local.disk.size)
            self._wait_for(0)
        self._check_errors()

    def _fetch(self, pool: ThreadPoolExecutor, packs: PackTable, job: PackJob) -> None:
        for piece in self._pieces(job):
            self._yield()
            calm = self._traffic.calm
            self._wait_for(max(int(self._line.window) - _stored(piece), 0) if calm else 0)
            self._check_errors()
            self._local.acknowledge()
            claimed = self._chunks.claim(piece)
            if claimed is None:
                continue
            with self._changed:
                self._under_way += _stored(claimed)
                used = self._under_way >= self._line.window / 2
            pool.submit(self._fetch_piece, claimed, packs, time.monotonic(), used)

    def _pieces(self, job: PackJob) -> Iterator[PackJob]:
        """Large ones where the guest does not care; how large is decided for each anew."""
        rest: PackJob | None = job
        while rest is not None:
            self._yield()
            parts = split(rest, min(LARGE, max(int(self._line.window / 2), SMALL)) if self._traffic.calm else SMALL)
            piece = next(parts)
            at = len(piece.positions)
            yield piece
            rest = PackJob(job.pack, rest.positions[at:], rest.rows[at:]) if at < len(rest.positions) else None

    def _fetch_piece(self, piece: PackJob, packs: PackTable, start: float, used: bool) -> None:
        size = _stored(piece)
        errors: list[BaseException] = []
        try:
            errors = self._chunks.fetch(piece, packs)
        finally:
            with self._changed:
                self._under_way -= size
                self._line.answered(size, time.monotonic() - start, used=used)
                self.done = max(self.done, int(piece.positions[-1]) * self._local.disk.chunk_size)
                for error in errors:
                    # The store's absence can pass; what is damaged stays so.
                    if self._damage is None or isinstance(self._damage, StoreError):
                        self._damage = error
                self._changed.notify_all()

    def _wait_for(self, most: int) -> None:
        """Until at most so many bytes are under way."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way <= most or self._stop.is_set())
        self._check_stop()

    def _yield(self) -> None:
        """As long as the guest needs the store."""
        while not self._traffic.wait_quiet(0.5):
            self._check_stop()
            self._local.acknowledge()
        self._check_stop()

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    def _check_errors(self) -> None:
        """Damage ends it only when everything else is there; a store that is gone or a full disk at once."""
        if self._chunks.full is not None:
            raise TargetError(self._chunks.full.message, remedy=self._chunks.full.remedy)
        if self._damage is not None and not isinstance(self._damage, CorruptObject):
            raise self._damage

    # -- proving ---------------------------------------------------------------------------------------------------

    def _prove(self) -> None:
        """A restore that finds everything there, and proves it."""
        if self._damage is not None:
            raise self._damage
        # From here to the end only the restore writes to the stage, or its guard would not be that of what was proved.
        self._chunks.freeze(self._check_stop)
        try:
            self._local.acknowledge(now=True)
            self.phase, self.done = "proving", 0
            local = self._local
            restore = DiskRestore(
                self._repository, local.point, local.disk, local.writer, local.stage, parallel=1, watch=self._watch
            )
            restore.run()
            self._chunks.completed()
        finally:
            self._chunks.thaw()
        self.phase, self.done = "filled", local.disk.size
        logger().info("%s is filled and proved; the next start reads it alone", local.path)

    def _watch(self, counters: Counters) -> None:
        self.done = counters.done
        self._check_stop()
        self._traffic.wait_quiet(0.2)


def _stored(job: PackJob) -> int:
    return int(job.rows["length"].sum(dtype=np.int64))
