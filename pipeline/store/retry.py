"""The one place that tries again: transient errors only, with a deadline for the whole operation."""

from __future__ import annotations

import builtins
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from pipeline.errors import AlreadyExists, NotFound, StoreError
from pipeline.store.base import Abilities, Bytes, ObjectInfo, Store, flat
from pipeline.store.layer import Layer

T = TypeVar("T")

DELETE_BATCH = 1000
"""Keys that are deleted, and tried again, together."""

PATIENCE = 5.0
"""Seconds of trouble after which it is told that somebody waits for the store."""

TELL_AGAIN = 60.0
"""Seconds between two such messages, however many operations wait."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: before attempt n, wait a random time up to min(longest, first * 2**n) seconds.

    No attempt begins later than `deadline` seconds after the first. How long one attempt takes at most is the
    backend's matter (`s3.Timeouts`). `sleep` and `clock` are there for tests.
    """

    first: float = 0.2
    longest: float = 20.0
    deadline: float = 900.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


class RetryStore(Layer):
    """Tries transient errors again until `backoff.deadline`; every other error is raised at once.

    `tell` hears what is wrong and how long it will be tried, when it lasts: nobody should wait and not know for what.
    """

    def __init__(
        self, inner: Store, backoff: Backoff | None = None, *, tell: Callable[[str], object] = lambda _text: None
    ) -> None:
        super().__init__(inner)
        self._backoff = backoff or Backoff()
        self._tell = tell
        self._told = float("-inf")
        self._telling = threading.Lock()

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        attempts = 0

        def attempt() -> None:
            nonlocal attempts
            attempts += 1
            try:
                self.inner.put(key, data, create=create)
            except AlreadyExists:
                # The answer of an earlier attempt may have been lost: then the object that stands there is ours.
                if attempts == 1 or not self._is_stored(key, data):
                    raise

        self._persist(attempt)

    def get(self, key: str) -> memoryview:
        return self._persist(lambda: self.inner.get(key))

    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        return self._persist(lambda: self.inner.get_range(key, offset, length))

    def head(self, key: str) -> ObjectInfo | None:
        return self._persist(lambda: self.inner.head(key))

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Goes on behind the last key that came; each key that comes starts the deadline anew."""
        last = after
        listing = self.inner.list(prefix, after=last)

        def following() -> ObjectInfo | None:
            nonlocal listing
            try:
                return next(listing, None)
            except StoreError:
                listing = self.inner.list(prefix, after=last)  # a generator that raised is at its end
                raise

        while (info := self._persist(following)) is not None:
            last = info.key
            yield info

    def delete_many(self, keys: Iterable[str]) -> None:
        iterator = iter(keys)
        while batch := builtins.list(islice(iterator, DELETE_BATCH)):
            # The default binds this turn's batch; mypy cannot type a lambda's default.
            self._persist(lambda batch=batch: self.inner.delete_many(batch))  # type: ignore[misc]

    def probe(self) -> Abilities:
        return self._persist(self.inner.probe)

    def _is_stored(self, key: str, data: Bytes) -> bool:
        try:
            return bytes(self.inner.get(key)) == bytes(flat(data))
        except NotFound:
            return False

    def _persist(self, attempt: Callable[[], T]) -> T:
        """The answer of the first attempt that does not fail transiently; at the deadline, its last error."""
        backoff = self._backoff
        start = backoff.clock()
        tried = 0
        while True:
            try:
                return attempt()
            except StoreError as error:
                if not error.transient:
                    raise
                wait = random.uniform(0, min(backoff.longest, backoff.first * 2 ** min(tried, 30)))
                tried += 1
                elapsed = backoff.clock() - start
                if elapsed + wait > backoff.deadline:
                    error.message += f" (gave up after {tried} attempts in {elapsed:.0f} s)"
                    raise
                if elapsed + wait >= PATIENCE:
                    self._say(f"{error.message}; it is tried again for {backoff.deadline - elapsed:.0f} s more")
                backoff.sleep(wait)

    def _say(self, text: str) -> None:
        now = self._backoff.clock()
        with self._telling:
            if now - self._told < TELL_AGAIN:
                return
            self._told = now
        self._tell(text)
