"""A bucket that keeps versions, and may lock them; its clock is the test's.

As S3 and MinIO do it (tests/store/test_versions.py holds MinIO and this to the same): a put adds a version; a delete by
key adds a marker that hides the others; a delete by version takes it away, and is refused while the version is locked.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from pipeline.errors import AlreadyExists, CorruptObject, NotFound
from pipeline.store.base import Abilities, Bytes, Locked, ObjectInfo, Store, Version, Versions, check_key, flat
from pipeline.store.memory import MemoryStore


@dataclass
class Kept:
    """One version; no data: a marker."""

    id: str
    data: bytes | None
    modified: datetime
    until: datetime | None = None


class VersionedStore(Store, Versions):
    """`lock`: so long every object is locked from when it is written."""

    name = "versioned"

    def __init__(self, *, lock: timedelta = timedelta()) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.lock = lock
        self.objects: dict[str, list[Kept]] = {}
        self.deleted: list[tuple[str, str]] = []
        """(key, version) of all deletes by version, in order."""
        self.last_deletes = -1
        """So many more deletes by version are carried out; then comes a `Crash`."""
        self._count = 0
        self._lock = threading.Lock()

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        with self._lock:
            if create and self._newest(key) is not None:
                raise AlreadyExists(f"{key} already exists")
            self._add(check_key(key), bytes(flat(data)), self.now + self.lock if self.lock else None)

    def get(self, key: str) -> memoryview:
        newest = self._newest(check_key(key))
        if newest is None:
            raise NotFound(f"{key} is not there")
        assert newest.data is not None
        return memoryview(newest.data)

    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        part = self.get(key)[offset : offset + length]
        if len(part) != length:
            raise CorruptObject(f"{key} is too short for {length} bytes at {offset}")
        return part

    def head(self, key: str) -> ObjectInfo | None:
        newest = self._newest(check_key(key))
        return None if newest is None else ObjectInfo(key, len(newest.data or b""), newest.modified, newest.id)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        for key in self._keys():
            newest = self._newest(key)
            if key.startswith(prefix) and key > after and newest is not None:
                yield ObjectInfo(key, len(newest.data or b""), newest.modified)

    def delete_many(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._add(check_key(key), None, None)

    def probe(self) -> Abilities:
        return replace(MemoryStore().probe(), versioning=True)

    def versions(self) -> Versions:
        return self

    def close(self) -> None:
        pass

    def list_versions(self, key: str) -> list[Version]:
        return [version for version in self.walk(check_key(key)) if version.key == key]

    def walk(self, prefix: str, *, after: str = "") -> Iterator[Version]:
        for key in self._keys():
            if key.startswith(prefix) and key > after:
                kept = self.objects.get(key, [])
                for number, v in enumerate(reversed(list(kept))):
                    yield Version(key, v.id, len(v.data or b""), v.modified, number == 0, v.data is None)

    def get_version(self, version: Version) -> bytes:
        for kept in self.objects.get(version.key, ()):
            if kept.id == version.id and kept.data is not None:
                return kept.data
        raise NotFound(f"version {version.id} of {version.key}")

    def delete_versions(self, versions: Iterable[Version]) -> list[Locked]:
        locked = []
        for version in versions:
            kept = next((v for v in self.objects.get(version.key, ()) if v.id == version.id), None)
            if kept is None:
                continue
            if kept.until is not None and kept.until > self.now:
                locked.append(Locked(version, kept.until))
                continue
            if self.last_deletes == 0:
                raise Crash
            self.last_deletes -= 1
            self.deleted.append((version.key, version.id))
            self.objects[version.key].remove(kept)
            if not self.objects[version.key]:
                del self.objects[version.key]
        return locked

    def kept(self, prefix: str) -> set[str]:
        """All keys of which some version is there, or a marker."""
        return {key for key in self._keys() if key.startswith(prefix)}

    def _keys(self) -> list[str]:
        with self._lock:
            return sorted(self.objects)

    def _newest(self, key: str) -> Kept | None:
        kept = self.objects.get(key)
        return None if not kept or kept[-1].data is None else kept[-1]

    def _add(self, key: str, data: bytes | None, until: datetime | None) -> None:
        self._count += 1
        self.objects.setdefault(key, []).append(Kept(f"v{self._count}", data, self.now, until))


class Crash(BaseException):
    """The process is gone, as by kill -9."""
