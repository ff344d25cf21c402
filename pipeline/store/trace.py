"""What was asked of a store: requests, bytes, seconds and errors for each verb, and a log of requests if wanted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from pipeline.store.base import Bytes, ObjectInfo, Store, flat
from pipeline.store.layer import Layer


@dataclass(slots=True)
class Count:
    """Of one verb. `sent` and `received`: payload bytes of successful requests. `seconds`: summed over threads."""

    requests: int = 0
    errors: int = 0
    sent: int = 0
    received: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Tally:
    """Counts by verb (`put`, `get`, `get_range`, `head`, `list`, `delete_many`). Safe for many threads."""

    _verbs: dict[str, Count] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, verb: str, *, sent: int, received: int, seconds: float, failed: bool) -> None:
        with self._lock:
            count = self._verbs.setdefault(verb, Count())
            count.requests += 1
            count.errors += failed
            count.sent += sent
            count.received += received
            count.seconds += seconds

    def snapshot(self) -> dict[str, Count]:
        """A copy of the counts so far."""
        with self._lock:
            return {verb: replace(count) for verb, count in self._verbs.items()}

    def total(self) -> Count:
        """All verbs together."""
        total = Count()
        for count in self.snapshot().values():
            total.requests += count.requests
            total.errors += count.errors
            total.sent += count.sent
            total.received += count.received
            total.seconds += count.seconds
        return total


class TraceStore(Layer):
    """Counts every attempt into `tally`; `log` takes one JSON line for each (keys and sizes, never contents)."""

    def __init__(self, inner: Store, tally: Tally, *, log: Callable[[str], object] | None = None) -> None:
        super().__init__(inner)
        self.tally = tally
        self._log = log

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        with self._timed("put", key) as moved:
            self.inner.put(key, data, create=create)
            moved[0] = flat(data).nbytes

    def get(self, key: str) -> memoryview:
        with self._timed("get", key) as moved:
            data = self.inner.get(key)
            moved[1] = len(data)
        return data

    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        with self._timed("get_range", key) as moved:
            data = self.inner.get_range(key, offset, length)
            moved[1] = len(data)
        return data

    def head(self, key: str) -> ObjectInfo | None:
        with self._timed("head", key):
            return self.inner.head(key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """One listing is one request here, however many pages it takes."""
        start = time.monotonic()
        spent = 0.0
        failure = ""
        try:
            listing = self.inner.list(prefix, after=after)
            while True:
                try:
                    info = next(listing, None)
                except Exception as error:
                    failure = type(error).__name__
                    raise
                finally:
                    spent += time.monotonic() - start
                if info is None:
                    return
                yield info
                start = time.monotonic()  # the caller's time is not the store's
        finally:
            self._record("list", prefix, spent, 0, 0, failure)

    def delete_many(self, keys: Iterable[str]) -> None:
        keys = tuple(keys)
        with self._timed("delete_many", keys[0] if keys else ""):
            self.inner.delete_many(keys)

    @contextmanager
    def _timed(self, verb: str, key: str) -> Iterator[MutableSequence[int]]:
        moved = [0, 0]
        failure = ""
        start = time.monotonic()
        try:
            yield moved
        except Exception as error:
            failure = type(error).__name__
            raise
        finally:
            self._record(verb, key, time.monotonic() - start, moved[0], moved[1], failure)

    def _record(self, verb: str, key: str, seconds: float, sent: int, received: int, failure: str) -> None:
        self.tally.add(verb, sent=sent, received=received, seconds=seconds, failed=bool(failure))
        if self._log is None:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "verb": verb,
            "key": key,
            "ms": round(seconds * 1000, 1),
            "sent": sent,
            "received": received,
        }
        if failure:
            line["error"] = failure
        self._log(json.dumps(line))
