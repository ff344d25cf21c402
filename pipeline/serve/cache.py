"""Plain chunks in memory, for as long as there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict


class ChunkCache:
    """Holds at most `limit` bytes; the least recently used chunk goes first. Safe for many threads."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        """Bytes."""
        self._chunks: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, position: int) -> bytes | None:
        with self._lock:
            chunk = self._chunks.get(position)
            if chunk is not None:
                self._chunks.move_to_end(position)
            return chunk

    def __contains__(self, position: int) -> bool:
        return position in self._chunks

    def put(self, position: int, chunk: bytes) -> None:
        with self._lock:
            old = self._chunks.pop(position, b"")
            self._chunks[position] = chunk
            self.held += len(chunk) - len(old)
            while self.held > self.limit:
                _position, gone = self._chunks.popitem(last=False)
                self.held -= len(gone)

    def clear(self) -> None:
        with self._lock:
            self._chunks.clear()
            self.held = 0
