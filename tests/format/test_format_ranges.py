"""However many ranges a dying disk has, a manifest can name them, and covers every one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from manifests.manifest import MAX_UNREADABLE, Disk
from manifests.ranges import join_ranges

from . import make_vectors as made


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 5)), max_size=20), st.integers(1, 6))
@settings(deadline=None, max_examples=200)
def test_joined_ranges_cover_the_given_ones_ascend_and_are_few(ranges: list[tuple[int, int]], most: int) -> None:
    found = join_ranges(ranges, most=most)
    given_bytes = {at for offset, length in ranges for at in range(offset, offset + length)}
    covered = [at for offset, length in found for at in range(offset, offset + length)]
    assert given_bytes <= set(covered)
    assert covered == sorted(set(covered))
    assert len(found) <= most
    assert join_ranges(ranges, most=100) == join_ranges(found, most=100) or len(found) == most
    if len(join_ranges(ranges, most=100)) <= most:
        assert given_bytes == set(covered)


def test_the_smallest_gaps_are_closed_first() -> None:
    assert join_ranges([(0, 1), (10, 1), (12, 1), (40, 1)], most=3) == [(0, 1), (10, 3), (40, 1)]
    assert join_ranges([(0, 1), (10, 1), (12, 1), (40, 1)], most=1) == [(0, 41)]
    assert join_ranges([], most=1) == []


def test_a_disk_with_a_hundred_thousand_bad_sectors_has_a_manifest() -> None:
    bad = [(1024 * i, 512) for i in range(100_000)]
    disk = made.manifest().disks[0].model_dump()
    with pytest.raises(ValidationError):
        Disk(**disk | {"unreadable": tuple(bad)})
    found = join_ranges(bad, most=MAX_UNREADABLE)
    assert len(Disk(**disk | {"unreadable": tuple(found)}).unreadable) == MAX_UNREADABLE
