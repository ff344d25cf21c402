"""A bound on the bytes of requests that are held at once."""

from __future__ import annotations

import threading


class Budget:
    """`limit` bytes for all clients together; one request may have more when it is alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._changed = threading.Condition()

    def take(self, length: int) -> None:
        """Wait until there is room."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + length <= self._limit)
            self._taken += length

    def give(self, length: int) -> None:
        with self._changed:
            self._taken -= length
            self._changed.notify_all()
