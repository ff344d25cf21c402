"""As many requests at once as a store serves well: more while it answers evenly, fewer when it falls behind.

Additive increase, multiplicative decrease, as TCP does it. The signs are a store that asks to slow down, and answers
that take several times as long as the best that requests of this kind and size took: then more requests only wait in
line. A wrong guess costs little: beyond the knee the throughput is the same with fewer requests at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from pipeline.errors import StoreUnavailable
from pipeline.store.base import Bytes, ObjectInfo, Store, flat
from pipeline.store.layer import Layer

LEAST = 4
"""Requests at once that are never undercut by slow answers, only by a store that asks for it."""
FIRST = 16
"""Requests at once at the beginning, where so many are allowed."""
SLOW = 4.0
"""Answers that take so many times the best of their kind are a sign of a line before the store."""
SMOOTH = 0.1
"""Weight of the newest answer in the mean of its kind."""
EARLY, EVERY = 256, 4096
"""Answers after which the best is measured anew, with few requests at once: first, and from then on. A best from a
full line hides the line, and one from a better hour asks too much."""


class Window:
    """How many requests may be under way. Not safe for threads by itself; time comes from the caller."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.size = float(min(most, FIRST))
        self._mean: dict[object, float] = {}
        self._best: dict[object, float] = {}
        self._lowered = float("-inf")
        self._left = EARLY
        self._resume: float | None = None
        """While the best is measured: the size before."""

    def answered(self, kind: object, began: float, ended: float, *, full: bool) -> None:
        """A request of some kind ended well. `full`: as many were under way as may be, so that more could help."""
        if self._resume is not None and began < self._lowered:
            return  # it waited in the old line
        took = ended - began
        mean = self._mean[kind] = (1 - SMOOTH) * self._mean.get(kind, took) + SMOOTH * took
        best = self._best[kind] = min(self._best.get(kind, mean), mean)
        self._left -= 1
        if self._left <= 0:
            self._measure(ended)
        elif self._resume is not None:
            return
        elif mean > SLOW * best:
            if self.size > LEAST:
                self._lower(began, ended, 0.9, LEAST)
        elif full:
            self.size = min(self.most, self.size + 1 / self.size)

    def refused(self, began: float, ended: float) -> None:
        """The store asked to slow down, or did not answer."""
        self._lower(began, ended, 0.5, 1)

    def _lower(self, began: float, ended: float, factor: float, least: float) -> None:
        if began < self._lowered:
            return  # it was sent before the window shrank: the same sign again
        self.size = max(least, self.size * factor)
        if self._resume is not None:
            self._resume = max(least, self._resume * factor)
        self._lowered = ended

    def _measure(self, now: float) -> None:
        """Begin to measure the best, or go back to the size before."""
        if self._resume is None:
            self._resume, self._left = self.size, 2 * LEAST
            self.size, self._lowered = min(self.size, LEAST), now
            self._mean.clear()
            self._best.clear()
        else:
            self.size, self._left, self._resume = self._resume, EVERY, None


class AdaptiveStore(Layer):
    """At most `most` requests at a time, and fewer while the store cannot keep up with that.

    Listings pass: few are under way at a time. Belongs below the retry layer, whose waits hold no place.
    """

    def __init__(self, inner: Store, *, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(inner)
        self._window = Window(most)
        self._clock = clock
        self._under_way = 0
        self._turn = threading.Condition()

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        with self._request("put", flat(data).nbytes):
            self.inner.put(key, data, create=create)

    def get(self, key: str) -> memoryview:
        with self._request("get", None):
            return self.inner.get(key)

    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        with self._request("get range", length):
            return self.inner.get_range(key, offset, length)

    def head(self, key: str) -> ObjectInfo | None:
        with self._request("head", 0):
            return self.inner.head(key)

    def delete_many(self, keys: Iterable[str]) -> None:
        with self._request("delete", None):
            self.inner.delete_many(keys)

    @contextmanager
    def _request(self, verb: str, size: int | None) -> Iterator[None]:
        """`size` None: how long it takes says nothing about the store, as answers of any size are one kind."""
        with self._turn:
            self._turn.wait_for(lambda: self._under_way < max(1, int(self._window.size)))
            self._under_way += 1
            full = self._under_way >= int(self._window.size)
        began = self._clock()
        good = refused = False
        try:
            yield
            good = True
        except StoreUnavailable:
            refused = True
            raise
        finally:
            ended = self._clock()
            with self._turn:
                self._under_way -= 1
                if refused:
                    self._window.refused(began, ended)
                elif good and size is not None:
                    self._window.answered((verb, size.bit_length()), began, ended, full=full)
                self._turn.notify_all()
