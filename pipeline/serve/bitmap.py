"""One bit a block, in memory."""

from __future__ import annotations

from collections.abc import Iterator

_WINDOW = 1 << 15
"""Bits looked at together: whole-number arithmetic is quick on some thousand bits and slow on millions."""


class Bitmap:
    """`count` bits, all clear. Bit n is bit n % 8 (from the lowest) of byte n // 8."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.bytes = bytearray(-(-count // 8))

    def any(self, first: int, end: int) -> bool:
        """Whether a bit of [first, end) is set."""
        return any(self._word(low, high) for low, high in _windows(first, end))

    def runs(self, first: int, end: int) -> Iterator[tuple[int, int, bool]]:
        """(first, end, set) of equal bits that cover [first, end) in order."""
        start, current = first, False
        for low, high in _windows(first, end):
            word, at = self._word(low, high), low
            while at < high:
                bit = bool(word & 1)
                if bit != current:
                    if at > start:
                        yield start, at, current
                    start, current = at, bit
                # Up to the next bit that differs: the lowest one of the word, or of its complement.
                other = ~word if bit else word
                step = (other & -other).bit_length() - 1 if other else high - at
                step = min(step, high - at)
                word >>= step
                at += step
        if end > start:
            yield start, end, current

    def with_set(self, first: int, end: int) -> tuple[int, bytes] | None:
        """(byte, bytes) that have to replace what is there for [first, end) to be set; None when it is set already."""
        low, high = first >> 3, (end + 7) >> 3
        before = self.bytes[low:high]
        mask = ((1 << (end - first)) - 1) << (first & 7)
        after = (int.from_bytes(before, "little") | mask).to_bytes(high - low, "little")
        return None if after == before else (low, after)

    def _word(self, first: int, end: int) -> int:
        word = int.from_bytes(self.bytes[first >> 3 : (end + 7) >> 3], "little") >> (first & 7)
        return word & ((1 << (end - first)) - 1)


def _windows(first: int, end: int) -> Iterator[tuple[int, int]]:
    while first < end:
        stop = min(end, (first // _WINDOW + 1) * _WINDOW)
        yield first, stop
        first = stop
