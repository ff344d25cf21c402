"""Memory that a disk can be read into directly, past the page cache (O_DIRECT)."""

from __future__ import annotations

import ctypes

ALIGNMENT = 4096
"""Bytes: no disk has larger sectors."""


class Aligned:
    """`length` bytes of `buffer` from `start` on, which `view` shows; they begin at an address that is aligned."""

    def __init__(self, length: int) -> None:
        self.buffer = bytearray(length + ALIGNMENT)
        self.start = -_address(memoryview(self.buffer)) % ALIGNMENT
        self.view = memoryview(self.buffer)[self.start : self.start + length]


def is_aligned(offset: int, buffer: memoryview) -> bool:
    """Whether address, length and place on the disk allow a direct read."""
    return not (offset % ALIGNMENT or buffer.nbytes % ALIGNMENT or buffer.readonly or _address(buffer) % ALIGNMENT)


def _address(buffer: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer)) if buffer.nbytes else 0
