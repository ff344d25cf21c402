"""A store in memory: for tests, and the reference of what the others must do."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from pipeline.errors import AlreadyExists, CorruptObject, NotFound
from pipeline.store.base import Abilities, Bytes, ObjectInfo, Store, check_key, flat
from pipeline.store.probe import probe


class MemoryStore(Store):
    """Objects live as long as this value."""

    def __init__(self, name: str = "memory://") -> None:
        self.name = name
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, datetime]] = {}
        self._keys: list[str] = []

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        check_key(key)
        stored = bytes(flat(data))
        with self._lock:
            if key not in self._objects:
                insort(self._keys, key)
            elif create:
                raise AlreadyExists(f"{key} already exists in {self.name}")
            self._objects[key] = (stored, datetime.now(UTC))

    def get(self, key: str) -> memoryview:
        check_key(key)
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise NotFound(f"{key} is not in {self.name}")
        return memoryview(found[0])

    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        whole = self.get(key)
        part = whole[offset : offset + length]
        if len(part) != length:
            raise CorruptObject(
                f"{key} in {self.name} has {len(whole)} bytes, too short for {length} bytes at {offset}"
            )
        return part

    def head(self, key: str) -> ObjectInfo | None:
        check_key(key)
        with self._lock:
            found = self._objects.get(key)
        return None if found is None else ObjectInfo(key, len(found[0]), found[1])

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        with self._lock:
            start = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after) if after else 0)
            found = []
            for key in self._keys[start:]:
                if not key.startswith(prefix):
                    break
                data, modified = self._objects[key]
                found.append(ObjectInfo(key, len(data), modified))
        yield from found

    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            check_key(key)
            with self._lock:
                if self._objects.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]

    def probe(self) -> Abilities:
        return probe(self)

    def close(self) -> None:
        pass
