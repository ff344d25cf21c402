"""A store whose clock the test sets, and a workbench over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from transfer.support import CHUNK, MIB, Workbench, make_disk, noise

from pipeline.collect.collector import Collection
from pipeline.collect.plan import Plan
from pipeline.store.base import Bytes, ObjectInfo, Store
from pipeline.store.layer import Layer
from pipeline.store.memory import MemoryStore

HOUR = timedelta(hours=1)
DAY = 24 * HOUR


class TimedStore(Layer):
    """Objects get the time that `now` says; it passes only when the test lets it."""

    def __init__(self, inner: Store | None = None) -> None:
        super().__init__(inner or MemoryStore())
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.times: dict[str, datetime] = {}
        self.deleted: list[str] = []
        self.history: list[tuple[str, str]] = []

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        self.history.append(("put", key))
        self.inner.put(key, data, create=create)
        self.times[key] = self.now

    def get(self, key: str) -> memoryview:
        self.history.append(("get", key))
        return self.inner.get(key)

    def head(self, key: str) -> ObjectInfo | None:
        self.history.append(("head", key))
        info = self.inner.head(key)
        return info and self._timed(info)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        self.history.append(("list", prefix))
        return map(self._timed, self.inner.list(prefix, after=after))

    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.history.append(("delete", key))
            self.deleted.append(key)
            self.inner.delete_many([key])

    def _timed(self, info: ObjectInfo) -> ObjectInfo:
        return replace(info, modified=self.times.get(info.key, self.now))


class Yard:
    """A workbench whose store's time passes on demand."""

    def __init__(self, root: Path, store: Store | None = None, *, conditional_put: bool = True) -> None:
        self.store = TimedStore(store)
        self.bench = Workbench(root, self.store)
        self.source = make_disk(root / "source", 2 * MIB, {0: noise(20 * CHUNK, 1)})
        if not conditional_put:
            document = self.bench.repository.document
            self.bench.repository.document = replace(
                document, abilities={**document.abilities, "conditional_put": False}
            )

    @property
    def repository(self) -> Any:
        return self.bench.repository

    def wait(self, time: timedelta) -> None:
        self.store.now += time

    def collect(self, *, apply: bool = True, **options: Any) -> Plan:
        return Collection(self.repository, apply=apply, **options).run()

    def keys(self, prefix: str) -> list[str]:
        return [info.key for info in self.store.inner.list(prefix)]
