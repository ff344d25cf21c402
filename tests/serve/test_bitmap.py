"""A bitmap says what was set, at any place and length."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pipeline.serve.bitmap import Bitmap

COUNT = 70_000
"""More than two of the windows that are looked at together."""
ranges = st.tuples(st.integers(0, COUNT), st.integers(0, COUNT)).map(lambda r: (min(r), max(r)))


@given(st.lists(ranges, max_size=6), ranges)
def test_runs_and_any_equal_a_list_of_bits(marked: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    bitmap, model = Bitmap(COUNT), bytearray(COUNT)
    for first, end in marked:
        change = bitmap.with_set(first, end)
        assert (change is None) == (0 not in model[first:end])
        if change is not None:
            at, data = change
            bitmap.bytes[at : at + len(data)] = data
        model[first:end] = b"\1" * (end - first)
    first, end = asked
    runs = list(bitmap.runs(first, end))
    assert b"".join(bytes([bit]) * (high - low) for low, high, bit in runs) == model[first:end]
    assert all(a[1] == b[0] and a[2] != b[2] for a, b in itertools.pairwise(runs))
    assert bitmap.any(first, end) == (1 in model[first:end])
    assert len(bitmap.bytes) == -(-COUNT // 8)
