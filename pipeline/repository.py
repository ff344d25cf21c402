"""A repository: one store with one repository document, and typed access to its objects."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from manifests import repository as document_format
from manifests.envelope import Kind, open_by_id, seal_by_id
from manifests.names import pack_key, page_key
from manifests.repository import DEFAULT_CHUNK_SIZE, RepositoryDocument
from pipeline.errors import AlreadyExists, CorruptObject, NewerFormat, NotFound, UsageError
from pipeline.store.base import NO_REPOSITORY, Bytes, Store


class Repository:
    """Opened by `Repository.open`; safe to use from many threads."""

    def __init__(self, store: Store, document: RepositoryDocument) -> None:
        self.store = store
        self.document = document
        self.id = document.id_bytes

    @classmethod
    def init(cls, store: Store, *, chunk_size: int = DEFAULT_CHUNK_SIZE) -> Repository:
        """Probe the store and write the repository document. Raises UsageError when there is one already, and
        CorruptObject when only the document of one is gone: under a new one its points could not be read."""
        if store.head(document_format.KEY) is not None:
            raise _exists(store)
        if _holds_points(store):
            raise _lost(store)
        document = RepositoryDocument.new(chunk_size=chunk_size, abilities=_plain(asdict(store.probe())))
        try:
            store.put(document_format.KEY, document.encode(), create=document.abilities["conditional_put"])
        except AlreadyExists as error:
            raise _exists(store) from error
        return cls(store, document)

    @classmethod
    def open(cls, store: Store) -> Repository:
        """Raises UsageError when there is no repository at this address."""
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
        unknown = [info.key for info in store.list("features/")]
        if unknown:
            raise NewerFormat(
                f"{store.name} uses {unknown[0]}, which this failback does not know",
                remedy="upgrade failback on this host",
            )
        return cls(store, document)

    @property
    def conditional_put(self) -> bool:
        return bool(self.document.abilities.get("conditional_put"))

    def put_page_object(self, kind: Kind, plain: bytes) -> tuple[bytes, int]:
        """Store a page, segment, pack list or page directory; returns (id, stored length in bytes)."""
        object_id, data = seal_by_id(kind, plain, repository=self.id)
        self.store.put(page_key(object_id), data)
        return object_id, len(data)

    def get_page_object(self, kind: Kind, object_id: bytes) -> bytes:
        """Its plain body. A missing object is damage: something refers to it."""
        key = page_key(object_id)
        try:
            data = self.store.get(key)
        except NotFound as error:
            raise missing(key) from error
        return open_by_id(memoryview(data), kind, object_id, repository=self.id, name=key)

    def get_pack_range(self, pack: bytes, offset: int, length: int) -> Bytes:
        key = pack_key(pack)
        try:
            return self.store.get_range(key, offset, length)
        except NotFound as error:
            raise missing(key) from error


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
