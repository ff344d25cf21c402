"""Bounds on what a store is asked at once, on requests a second, and on bytes a second in either direction."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count

from pipeline.store.base import Abilities, Bytes, ObjectInfo, Store, flat
from pipeline.store.layer import Layer

BURST = 1.0
"""Seconds of unused rate that may be saved up."""


PAGE = 1000
"""Keys that one request of a listing answers at most."""


class Rate:
    """A token bucket of `per_second` bytes or requests (0: no limit). Safe for many threads."""

    def __init__(
        self,
        per_second: float,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second = per_second
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def take(self, amount: int) -> None:
        """Wait until `amount` may pass. More than the burst may be taken: the next one waits for it."""
        if self._per_second <= 0:
            return
        with self._lock:
            now = self._clock()
            start = max(self._free_at, now - BURST)
            self._free_at = start + amount / self._per_second
            wait = start - now
        if wait > 0:
            self._sleep(wait)


class LimitStore(Layer):
    """At most `parallel` requests at a time; `upload` and `download` in bytes, `requests` in number a second.

    0 is no limit; a listing counts as one request for each page of PAGE keys. Belongs below the retry layer: a request
    that waits for its next attempt holds no slot.
    """

    def __init__(
        self, inner: Store, *, parallel: int, upload: float = 0, download: float = 0, requests: float = 0
    ) -> None:
        super().__init__(inner)
        self._slots = threading.BoundedSemaphore(parallel)
        self._upload = Rate(upload)
        self._download = Rate(download)
        self._requests = Rate(requests)

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        self._upload.take(flat(data).nbytes)
        self._requests.take(1)
        with self._slots:
            self.inner.put(key, data, create=create)

    def get(self, key: str) -> memoryview:
        self._download.take(0)
        self._requests.take(1)
        with self._slots:
            data = self.inner.get(key)
        self._download.take(len(data))  # the size is known only now
        return data

    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        self._download.take(length)
        self._requests.take(1)
        with self._slots:
            return self.inner.get_range(key, offset, length)

    def head(self, key: str) -> ObjectInfo | None:
        self._requests.take(1)
        with self._slots:
            return self.inner.head(key)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        listing = self.inner.list(prefix, after=after)
        for number in count():
            if number % PAGE == 0:
                self._requests.take(1)
            with self._slots:  # not while the caller works on an entry: it may need a slot itself
                info = next(listing, None)
            if info is None:
                return
            yield info

    def delete_many(self, keys: Iterable[str]) -> None:
        keys = tuple(keys)
        self._requests.take(1)
        with self._slots:
            self.inner.delete_many(keys)

    def probe(self) -> Abilities:
        return self.inner.probe()
