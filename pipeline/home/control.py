"""How a caller watches an importer at work, and ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.errors import Cancelled
from pipeline.progress import Watch, ignore


def _silent(_text: str) -> None:
    """Nobody listens."""


class Controller:
    """A `pipeline.target.Control`. `cancel` may be called from any thread, also in a signal handler."""

    def __init__(self, *, watch: Watch = ignore, tell: Callable[[str], None] = _silent) -> None:
        self._watch = watch
        self._tell = tell
        self._cancelled = threading.Event()
        self._shields = 0

    @property
    def watch(self) -> Watch:
        return self._watch

    def tell(self, text: str) -> None:
        self._tell(text)

    def cancel(self) -> None:
        self._cancelled.set()

    def check(self) -> None:
        if self._cancelled.is_set() and not self._shields:
            raise Cancelled("the work was cancelled", remedy="run the same command again to go on")

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """For cleaning up after a cancellation: inside, `check` lets everything pass."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
