"""A clock that passes only when everybody waits."""

from __future__ import annotations

import queue
from typing import TypeVar

T = TypeVar("T")


class FakeClock:
    """While an attempt runs its end is awaited, up to `patience` real seconds; else the waiting time just passes."""

    def __init__(self, patience: float = 20.0) -> None:
        self.time = 0.0
        self.patience = patience

    def now(self) -> float:
        return self.time

    def wait(self, inbox: queue.Queue[T], seconds: float, *, busy: bool) -> T | None:
        try:
            return inbox.get(timeout=self.patience) if busy else inbox.get_nowait()
        except queue.Empty:
            self.time += seconds
            return None
