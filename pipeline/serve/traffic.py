"""Guest first: who waits for the store, and when the background may use it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUIET = 0.2
"""Seconds without a fetch for the guest before the background may fetch anything."""
CALM = 3.0
"""Seconds before it may use the line as if it were alone."""


class Traffic:
    """Counts fetches for the guest, read-ahead included."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._pending = 0
        self._last = clock()

    @contextmanager
    def guest(self) -> Iterator[None]:
        """While the guest waits, or soon would."""
        with self._changed:
            self._pending += 1
        try:
            yield
        finally:
            with self._changed:
                self._pending -= 1
                self._last = self._clock()
                self._changed.notify_all()

    @property
    def busy(self) -> bool:
        """The guest waits, or did so a moment ago."""
        return self._pending > 0 or self._clock() - self._last < QUIET

    @property
    def calm(self) -> bool:
        """The guest has not needed the store for a while."""
        return self._pending == 0 and self._clock() - self._last >= CALM

    def wait_quiet(self, longest: float) -> bool:
        """Whether the guest let go of the store within `longest` seconds."""
        deadline = self._clock() + longest
        with self._changed:
            while True:
                now = self._clock()
                quiet_at = self._last + QUIET
                if self._pending == 0 and now >= quiet_at:
                    return True
                if now >= deadline:
                    return False
                until = deadline if self._pending else min(quiet_at, deadline)
                self._changed.wait(max(until - now, 0.001))
