"""A store that wraps a store. Retry, limits, tracing and faults are layers; a layer changes only what it names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pipeline.store.base import Abilities, Bytes, ObjectInfo, Store, Versions


class Layer(Store):
    """Passes every verb on to `inner`."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.name = inner.name

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        self.inner.put(key, data, create=create)

    def get(self, key: str) -> memoryview:
        return self.inner.get(key)

    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        return self.inner.get_range(key, offset, length)

    def head(self, key: str) -> ObjectInfo | None:
        return self.inner.head(key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        return self.inner.list(prefix, after=after)

    def delete_many(self, keys: Iterable[str]) -> None:
        self.inner.delete_many(keys)

    def probe(self) -> Abilities:
        return self.inner.probe()

    def trust_names(self, folders: Sequence[str]) -> None:
        self.inner.trust_names(folders)

    def versions(self) -> Versions | None:
        return self.inner.versions()

    def close(self) -> None:
        self.inner.close()
