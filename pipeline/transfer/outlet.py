"""Where the objects of one disk's export go: to the store, or in a dry run nowhere."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

from blake3 import blake3

from manifests.entry import PackTable, Positions, Rows
from manifests.envelope import Kind
from manifests.names import pack_key
from manifests.pack import PackBuilder
from pipeline.repository import Repository
from pipeline.transfer.session import Session


class Outlet:
    """Stores by `pool`; without a session it only pretends to, and says what would be stored."""

    def __init__(self, repository: Repository, session: Session | None, number: int, pool: ThreadPoolExecutor) -> None:
        self.metadata = 0
        """Bytes of pages, segments, pack lists and journals stored."""
        self._repository = repository
        self._session = session
        self._number = number
        self._pool = pool
        self._lock = threading.Lock()

    @property
    def journals(self) -> bool:
        return self._session is not None

    def put(self, kind: Kind, plain: bytes) -> Future[tuple[bytes, int]]:
        """Store a page object in the background; the future gives (id, stored length)."""
        return self._pool.submit(self._put, kind, plain)

    def _put(self, kind: Kind, plain: bytes) -> tuple[bytes, int]:
        if self._session is None:
            return blake3(bytes([kind]) + plain).digest(), len(plain)
        object_id, stored = self._repository.put_page_object(kind, plain)
        with self._lock:
            self.metadata += stored
        return object_id, stored

    def store(self, builder: PackBuilder) -> Future[tuple[bytes, int]]:
        """Seal and store a pack in the background; the future gives (id, stored length)."""
        return self._pool.submit(self._store, builder)

    def _store(self, builder: PackBuilder) -> tuple[bytes, int]:
        pack, data = builder.seal()
        if self._session is not None:
            self._repository.store.put(pack_key(pack), data)
        return pack, len(data)

    def journal(self, positions: Positions, rows: Rows, packs: PackTable, stored: dict[int, int]) -> None:
        """Record chunks whose packs are stored; `stored` has the lengths of these by number."""
        if self._session is not None:
            written = self._session.journal(self._number, positions, rows, packs, stored)
            with self._lock:
                self.metadata += written
