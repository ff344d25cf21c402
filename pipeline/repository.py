"""A repository: one store with one repository document, and typed access to its objects."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from typing import Any

from manifests import repository as document_format
from manifests.certificate import fingerprint
from manifests.envelope import Kind, check_header, object_id, open_by_id, seal_by_id
from manifests.names import NAMED_BY_CONTENT, pack_key, page_key
from manifests.repository import DEFAULT_CHUNK_SIZE, Encryption, RepositoryDocument
from manifests.sealing import HEADER_SIZE, Buffer, ObjectKey, Sealing
from pipeline.errors import AlreadyExists, CorruptObject, FormatError, NewerFormat, NotFound, UsageError
from pipeline.keys.known import Seen
from pipeline.keys.locks import Lock
from pipeline.keys.ring import Opened, new_ring, put_slot, unlock
from pipeline.store.base import NO_REPOSITORY, Bytes, Store
from pipeline.store.older import older

NEAR = 64 << 10
"""A range of an encrypted pack that begins before this byte is read from the pack's beginning."""
_PACK_KEYS = 1 << 14
"""Keys of packs that are remembered, those of packs seen first forgotten first."""


class Repository:
    """Opened by `Repository.open`; safe to use from many threads."""

    def __init__(self, store: Store, document: RepositoryDocument, sealing: Sealing | None = None) -> None:
        self.store = store
        self.document = document
        self.id = document.id_bytes
        self.sealing = sealing or Sealing(self.id)
        self.opened: Opened | None = None
        """The key slot that opened it, when it is encrypted."""
        self.seen: Seen | None = None
        """What this host has seen of it before, where that is kept."""
        self.stood_in: set[str] = set()
        """Keys of objects that were read from an older version, since the newest is damaged or was deleted."""
        self._pack_keys: OrderedDict[bytes, ObjectKey] = OrderedDict()
        self._lock = threading.Lock()
        if document.abilities.get("checksum_headers"):
            store.trust_names(NAMED_BY_CONTENT)

    @classmethod
    def init(
        cls, store: Store, *, chunk_size: int = DEFAULT_CHUNK_SIZE, lock: Lock | None = None, label: str = "first"
    ) -> Repository:
        """Probe the store and write the repository document. With a `lock` it is encrypted, and has one key slot, an
        administrator's, that the lock opens.

        Raises UsageError when there is one already, and CorruptObject when only the document of one is gone: under a
        new one its points could not be read.
        """
        if store.head(document_format.KEY) is not None:
            raise _exists(store)
        if _holds_points(store):
            raise _lost(store)
        document = RepositoryDocument.new(chunk_size=chunk_size, abilities=_plain(asdict(store.probe())))
        sealing, create = None, bool(document.abilities["conditional_put"])
        if lock is not None:
            ring = new_ring(document.id_bytes)
            document = replace(document, encryption=Encryption(fingerprint(ring.root)))
            # Before the document: a repository without a slot could never be opened.
            put_slot(store, document, ring, lock, role="admin", label=label, create=create)
            sealing = Sealing(document.id_bytes, ring)
        try:
            store.put(document_format.KEY, document.encode(), create=create)
        except AlreadyExists as error:
            raise _exists(store) from error
        return cls(store, document, sealing)

    @classmethod
    def open(
        cls,
        store: Store,
        locks: Callable[[], Sequence[Lock]] = lambda: (),
        *,
        check: Callable[[RepositoryDocument], object] = lambda _document: None,
    ) -> Repository:
        """Raises UsageError when there is no repository at this address, KeyRefused when it is encrypted and none of
        the `locks` opens it. `check` sees its document before any key is tried, and may raise."""
        try:
            data = store.get(document_format.KEY)
        except NotFound as error:
            if _holds_points(store):
                raise _lost(store) from error
            raise UsageError(
                f"there is no repository at {store.name}",
                remedy=NO_REPOSITORY,
            ) from error
        document = RepositoryDocument.decode(bytes(data))
        refuse_features(store)
        check(document)
        if document.encryption is None:
            return cls(store, document)
        opened = unlock(store, document, locks())
        found = cls(store, document, opened.sealing(document.id_bytes))
        found.opened = opened
        return found

    @cached_property
    def chunk_id(self) -> Callable[[Buffer], bytes]:
        """Gives the id of a chunk that is not all zeros. Raises KeyRefused for a janitor."""
        return self.sealing.chunk_hasher()

    @property
    def conditional_put(self) -> bool:
        return bool(self.document.abilities.get("conditional_put"))

    def put_page_object(self, kind: Kind, plain: bytes) -> tuple[bytes, int]:
        """Store a page, segment, pack list or page directory; returns (id, stored length in bytes)."""
        object_id, data = seal_by_id(kind, plain, sealing=self.sealing)
        self.store.put(page_key(object_id), data)
        return object_id, len(data)

    def get_page_object(self, kind: Kind, object_id: bytes) -> bytes:
        """Its plain body. A missing object is damage: something refers to it."""
        key = page_key(object_id)
        try:
            try:
                data = self.store.get(key)
            except NotFound as error:
                raise missing(key) from error
            return open_by_id(memoryview(data), kind, object_id, sealing=self.sealing, name=key)
        except FormatError as error:
            data = self._older(key, object_id, error)
        return open_by_id(data, kind, object_id, sealing=self.sealing, name=key)

    def get_pack_range(self, pack: bytes, offset: int, length: int) -> Bytes:
        key = pack_key(pack)
        try:
            try:
                return self.store.get_range(key, offset, length)
            except NotFound as error:
                raise missing(key) from error
        except CorruptObject as error:
            return self._older(key, pack, error)[offset : offset + length]

    def older_pack(self, pack: bytes, error: FormatError) -> tuple[memoryview, ObjectKey | None]:
        """(the whole pack as it was stored, what opens it) from an older version. Raises `error` when there is none."""
        data = self._older(pack_key(pack), pack, error)
        return data, self._learn_key(pack, data) if self.sealing.encrypted else None

    def _older(self, key: str, wanted: bytes, error: FormatError) -> memoryview:
        """The version of an object whose hash is its id, where the newest is damaged, replaced or hidden by a deletion
        and the store keeps versions. Raises `error` when there is none."""
        found = older(self.store, key, lambda data: memoryview(data) if object_id(data) == wanted else None, error)
        if found is None:
            raise error
        self.stood_in.add(key)
        return found

    def read_pack(self, pack: bytes, offset: int, length: int) -> tuple[memoryview, int, ObjectKey | None]:
        """(bytes, offset of the first of them, what opens the chunks in them); at least the range that was asked for.

        The key of an encrypted pack needs its envelope: it comes along where it is near, else by a request of its own.
        """
        if self.sealing.encrypted and offset <= NEAR and not self._known_key(pack):
            length, offset = length + offset, 0
        data = memoryview(self.get_pack_range(pack, offset, length))
        if offset == 0 and self.sealing.encrypted:
            self._learn_key(pack, data)
        return data, offset, self.pack_key(pack)

    def pack_key(self, pack: bytes) -> ObjectKey | None:
        """What opens the chunks and the table of a pack. None: they are not encrypted."""
        if not self.sealing.encrypted:
            return None
        return self._known_key(pack) or self._learn_key(pack, self.get_pack_range(pack, 0, HEADER_SIZE))

    def forget_key(self, pack: bytes) -> None:
        """What its envelope gave did not open it: the next reader gets the envelope again."""
        with self._lock:
            self._pack_keys.pop(pack, None)

    def _known_key(self, pack: bytes) -> ObjectKey | None:
        with self._lock:
            return self._pack_keys.get(pack)

    def _learn_key(self, pack: bytes, header: Bytes) -> ObjectKey:
        name = pack_key(pack)
        if check_header(memoryview(header), sealing=self.sealing, name=name) != Kind.PACK:
            raise CorruptObject(f"{name} is not a pack")
        found = self.sealing.data_key(memoryview(header))
        assert found is not None
        with self._lock:
            self._pack_keys[pack] = found
            while len(self._pack_keys) > _PACK_KEYS:
                self._pack_keys.popitem(last=False)
        return found


def refuse_features(store: Store) -> None:
    """Raises NewerFormat when a reader must know more than this one does."""
    for info in store.list("features/"):
        raise NewerFormat(
            f"{store.name} uses {info.key}, which this failback does not know", remedy="upgrade failback on this host"
        )


def missing(key: str) -> CorruptObject:
    """The error for an object that something refers to and that is gone."""
    return CorruptObject(
        f"{key} is missing from the repository",
        remedy="`failback verify` lists every point that needs it; restore it from a copy of the bucket",
    )


def _holds_points(store: Store) -> bool:
    return next(iter(store.list("manifests/")), None) is not None


def _lost(store: Store) -> CorruptObject:
    return CorruptObject(
        f"{document_format.KEY} is missing from {store.name}, which holds recovery points",
        remedy="restore it from a copy of the bucket; a new repository goes to another prefix",
    )


def _exists(store: Store) -> UsageError:
    return UsageError(f"there is already a repository at {store.name}", remedy="use it, or choose another prefix")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists, not tuples; the document must read back as it was written."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
