"""The clock of the runner, so that tests can have one of their own."""

from __future__ import annotations

import queue
import time
from typing import Protocol, TypeVar

T = TypeVar("T")


class Clock(Protocol):
    def now(self) -> float:
        """Seconds, monotonic."""

    def wait(self, inbox: queue.Queue[T], seconds: float, *, busy: bool) -> T | None:
        """The next thing that comes in, within so many seconds. `busy`: something is expected to come."""


class MonotonicClock:
    """The host's."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, inbox: queue.Queue[T], seconds: float, *, busy: bool) -> T | None:
        try:
            return inbox.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None
