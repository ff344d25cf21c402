"""A bucket that many clients use, and that does to them whatever an S3-like store may do.

It is consistent after a write, as failback asks of a store. All the rest is allowed: an answer gets lost, a request is
refused, held back for any time, or carried out twice; a listing comes in pages, and between two of them others
write; nodes have clocks that differ; a listing of packs or pages lacks what was written in the last moments.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from pipeline.errors import AlreadyExists, CorruptObject, NotFound, StoreUnavailable
from pipeline.store.base import Abilities, Bytes, ObjectInfo, Store, check_key, flat
from pipeline.store.memory import MemoryStore
from simulators.baton import Client, Fate

PAGE = 3
"""Keys in a page of a listing."""
SKEW = 140.0
"""Seconds by which a node's clock is off, at most: two differ by less than the five minutes that FORMAT.md allows."""


class Bucket:
    """What is stored. `changed` hears of every key that was created or deleted, by whomever and however late."""

    def __init__(self, seed: int) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.keys: list[str] = []
        self.held: list[Callable[[], object]] = []
        self.changed: Callable[[str, bool], None] = lambda _key, _there: None
        self.random = random.Random(seed)

    def put(self, key: str, data: bytes, *, create: bool) -> None:
        new = key not in self.objects
        if create and not new:
            raise AlreadyExists(f"{key} already exists")
        self.objects[key] = (data, self.now + timedelta(seconds=self.random.uniform(-SKEW, SKEW)))
        if new:
            insort(self.keys, key)
            self.changed(key, True)

    def delete(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]
            self.changed(key, False)

    def page(self, prefix: str, after: str, *, stale: bool = False) -> tuple[list[ObjectInfo], bool]:
        """The next keys, and whether the listing goes on."""
        start = max(bisect_left(self.keys, prefix), bisect_right(self.keys, after) if after else 0)
        found = []
        for key in self.keys[start : start + PAGE]:
            if not key.startswith(prefix):
                return found, False
            data, made = self.objects[key]
            found.append(ObjectInfo(key, len(data), made))
        whole = len(found) == PAGE
        if stale:
            found = [info for info in found if info.modified < self.now - timedelta(seconds=SKEW)] or found[-1:]
        return found, whole

    def release(self, which: int) -> None:
        """A request that was held back is carried out. Whoever made it does not wait for it any more."""
        with suppress(AlreadyExists):
            self.held.pop(which)()


class View(Store):
    """The bucket as a client sees it (without one: as it is)."""

    name = "simulated"

    def __init__(self, bucket: Bucket, client: Client | None = None) -> None:
        self.bucket, self.client = bucket, client

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        stored = bytes(flat(data))
        self._write("put", check_key(key), lambda: self.bucket.put(key, stored, create=create))
        if self.client is not None and key.endswith("/session"):
            self.client.announced.add(key)

    def get(self, key: str) -> memoryview:
        self._wait("get", check_key(key))
        if key not in self.bucket.objects:
            raise NotFound(f"{key} is not there")
        return memoryview(self.bucket.objects[key][0])

    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        part = self.get(key)[offset : offset + length]
        if len(part) != length:
            raise CorruptObject(f"{key} is too short for {length} bytes at {offset}")
        return part

    def head(self, key: str) -> ObjectInfo | None:
        self._wait("head", check_key(key))
        found = self.bucket.objects.get(key)
        return found and ObjectInfo(key, len(found[0]), found[1])

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        more = True
        while more:
            fate = self._wait("list", prefix)
            infos, more = self.bucket.page(prefix, after, stale=fate == "stale")
            yield from infos
            after = infos[-1].key if infos else after

    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._write("delete", check_key(key), lambda key=key: self.bucket.delete(key))  # type: ignore[misc]

    def probe(self) -> Abilities:
        return MemoryStore().probe()

    def close(self) -> None:
        pass

    def _wait(self, verb: str, key: str) -> Fate:
        if self.client is None:
            return "done"
        fate = self.client.wait(verb, key)
        if fate == "refused":
            raise _unavailable(verb, key)
        return fate

    def _write(self, verb: str, key: str, effect: Callable[[], object]) -> None:
        fate = self._wait(verb, key)
        if fate == "held":
            self.bucket.held.append(effect)
            raise _unavailable(verb, key)
        effect()
        if fate == "twice":
            self.bucket.held.append(effect)
        if fate == "lost":
            raise _unavailable(verb, key)
        if fate == "killed after":
            assert self.client is not None
            self.client.kill()


def _unavailable(verb: str, key: str) -> StoreUnavailable:
    return StoreUnavailable(f"no answer to {verb} {key}")
