"""A table of packs gives each id one number, however many there are, in little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.entry import PackTable

COUNT = 200_000
few_ids = st.sampled_from([bytes([a]) * 8 + bytes([b]) * 24 for a in range(3) for b in range(1, 4)])


@given(st.lists(st.tuples(st.booleans(), few_ids), max_size=60))
@settings(deadline=None, max_examples=200)
def test_ids_and_numbers_belong_together_even_where_ids_begin_alike(steps: list[tuple[bool, bytes]]) -> None:
    table, known = PackTable(), dict[bytes, int]()
    for new, pack in steps:
        if new and pack not in known:
            number = table.reserve()
            assert table.ids[number] == b""
            table.settle(number, pack)
            assert number == len(known)
        else:
            number = table.ordinal(pack)
        assert known.setdefault(pack, number) == number
        assert len(table) == len(table.ids) == len(known)
    assert list(table.ids) == table.ids[:] == list(known)
    again = PackTable(known)
    assert [again.ordinal(pack) for pack in known] == list(range(len(known)))


def test_numbers_that_do_not_exist_are_refused() -> None:
    table = PackTable([b"a" * 32, b"b" * 32])
    assert table.ids[-1] == b"b" * 32
    for number in (2, -3):
        with pytest.raises(IndexError):
            table.ids[number]


def test_many_packs_need_less_than_a_hundred_bytes_each() -> None:
    stream = np.frombuffer(blake3(b"packs").digest(32 * COUNT), "V32")
    tracemalloc.start()
    table = PackTable(row.tobytes() for row in stream)
    loaded, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert loaded < 80 * COUNT
    assert peak < 200 * COUNT
    for i in range(0, COUNT, 997):
        assert table.ordinal(stream[i].tobytes()) == i
    grown = PackTable()
    assert [grown.ordinal(stream[i].tobytes()) for i in range(5000)] == list(range(5000))
