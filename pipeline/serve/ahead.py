"""Which chunks a guest will read next, as far as what it read tells."""

from __future__ import annotations

import threading
from collections import deque

STREAMS = 16
"""Sequential readers that are followed at once."""


class _Stream:
    __slots__ = ("end", "following", "window")

    def __init__(self, following: int, end: int, window: int) -> None:
        self.following = following
        self.end = end
        self.window = window


class ReadAhead:
    """Follows sequential readers. Positions and lengths are chunks.

    A miss that continues no stream begins one: it takes `first` chunks with it. When a reader comes into the second
    half of what was read ahead for it, the next part is due, twice as long as the last, up to `longest`.
    """

    def __init__(self, *, first: int, longest: int) -> None:
        self.first = max(first, 1)
        self.longest = max(longest, self.first)
        self._streams: deque[_Stream] = deque(maxlen=STREAMS)
        self._lock = threading.Lock()

    def read(self, first: int, end: int) -> tuple[int, int] | None:
        """The guest reads [first, end): the positions that should be fetched behind its back, if any."""
        with self._lock:
            stream = self._find(first)
            if stream is None:
                return None
            stream.following = max(stream.following, end)
            stream.end = max(stream.end, stream.following)
            if stream.end - stream.following > stream.window // 2:
                return None
            start = stream.end
            stream.window = min(stream.window * 2, self.longest)
            stream.end = start + stream.window
            return start, stream.end

    def missed(self, first: int, end: int) -> int:
        """[first, end) must be fetched for the guest: how many chunks behind it should come with it."""
        with self._lock:
            if self._find(first) is None:
                self._streams.append(_Stream(end, end + self.first, self.first))
                return self.first
            return 0

    def _find(self, first: int) -> _Stream | None:
        for stream in reversed(self._streams):
            if stream.following - 1 <= first <= stream.end:
                return stream
        return None
