"""The disk digest is the Merkle tree of FORMAT.md, whichever way it is computed."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests import tree

from . import reader

CHUNK = 64 << 10
SIZES = [0, 1, 2, 63, 64, 65, 127, 128, 4095, 4096, 4097, 8192]


def some_ids(count: int) -> list[bytes]:
    stream = blake3(b"ids").digest(32 * count)
    return [stream[32 * i : 32 * i + 32] for i in range(count)]


def digest(ids: list[bytes], *, size: int | None = None, chunk_size: int = CHUNK) -> bytes:
    """As an exporter does it: leaf by leaf."""
    pages = [b"".join(ids[i : i + tree.LEAF_POSITIONS]) for i in range(0, len(ids), tree.LEAF_POSITIONS)]
    leaves = b"".join(tree.leaf(page) for page in pages)
    return tree.disk_digest(leaves, size=len(ids) * chunk_size if size is None else size, chunk_size=chunk_size)


@pytest.mark.parametrize("count", [*SIZES, 262144, 262145])
def test_the_digest_equals_the_recursive_reference(count: int) -> None:
    ids = some_ids(count)
    assert digest(ids) == reader.digest(ids, count * CHUNK, CHUNK)


@pytest.mark.parametrize("count", [*SIZES, 262144, 262145])
def test_short_cuts_for_zeros_equal_the_reference(count: int) -> None:
    zeros = [bytes(32)] * count
    found = tree.disk_digest(tree.zero_leaves(count), size=count * CHUNK, chunk_size=CHUNK)
    assert found == reader.digest(zeros, count * CHUNK, CHUNK)
    if 0 < count <= 4096:
        assert tree.zero_leaf(count) == tree.leaf(bytes(32 * count))


@given(count=st.sampled_from([1, 2, 64, 65, 4096, 4097]), at=st.integers(0), bit=st.integers(0, 255))
@settings(deadline=None, max_examples=60)
def test_any_bit_of_any_id_changes_the_digest(count: int, at: int, bit: int) -> None:
    ids = some_ids(count)
    before = digest(ids)
    wrong = bytearray(ids[at % count])
    wrong[bit // 8] ^= 1 << bit % 8
    ids[at % count] = bytes(wrong)
    assert digest(ids) != before


@pytest.mark.parametrize("count", [2, 65, 4097])
def test_two_ids_that_change_places_change_the_digest(count: int) -> None:
    ids = some_ids(count)
    swapped = [ids[-1], *ids[1:-1], ids[0]]
    assert digest(ids) != digest(swapped)


def test_size_and_chunk_size_change_the_digest() -> None:
    ids = some_ids(3)
    sizes = {digest(ids, size=size) for size in (3 * CHUNK, 3 * CHUNK - 1, 2 * CHUNK + 1)}
    assert len(sizes) == 3
    assert digest(ids, size=3 * CHUNK, chunk_size=2 * CHUNK) not in sizes


def test_disks_of_zeros_of_different_lengths_differ() -> None:
    counts = [0, 1, 63, 64, 65, 4096, 4097]
    found = {tree.disk_digest(tree.zero_leaves(n), size=n * CHUNK, chunk_size=CHUNK) for n in counts}
    assert len(found) == len(counts)


@pytest.mark.parametrize(
    ("leaves", "size"), [(0, 1), (1, 0), (1, 4096 * CHUNK + 1), (2, 4096 * CHUNK), (3, 5000 * CHUNK)]
)
def test_leaves_that_do_not_fit_the_size_give_no_digest(leaves: int, size: int) -> None:
    with pytest.raises(ValueError, match="leaves"):
        tree.disk_digest(bytes(32 * leaves), size=size, chunk_size=CHUNK)


KNOWN = {
    0: "7e1fdef585f8a06c6b77b3b004cc64462c8eda82a93eea134188594d39364b54",
    1: "cba094118d2f4d5bd253f9aab950eb241dbf5177154da4624a85780596d14e21",
    65: "ca6c8ed967315633e515380aafc80060f16de7db73ebd42cfa66b99cc0fbfa34",
    4097: "8581d63f2051ffce4e4a75a3f53919443f4fcb3701d0f33d894e26ed1bbfe766",
}
"""Digests by number of chunks, from the reference."""


@pytest.mark.parametrize("count", sorted(KNOWN))
def test_known_digests_do_not_drift(count: int) -> None:
    assert digest(some_ids(count)).hex() == KNOWN[count]
