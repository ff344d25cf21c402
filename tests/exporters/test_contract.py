"""The promises of `pipeline.exporters.base`, kept by every exporter."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from nbd.tools import own_servers

from exporters.conftest import Opener, read, sparse_content
from pipeline.exporters.open import open_exporter

SIZE = 5 * 1024 * 1024 + 12_345


def test_size_and_sector_size_are_those_of_the_disk(opened: Opener) -> None:
    exporter, content = opened(sparse_content(SIZE))
    assert exporter.size == len(content)
    assert exporter.sector_size == 512
    assert exporter.read_threads >= 1
    assert not exporter.live


def test_any_range_reads_what_is_on_the_disk(opened: Opener) -> None:
    exporter, content = opened(sparse_content(SIZE))
    assert read(exporter, 0, exporter.size) == content
    source = random.Random(2)
    for _ in range(200):
        offset = source.randrange(exporter.size)
        length = source.randint(0, min(source.choice([1, 600, 70_000, 3_000_000]), exporter.size - offset))
        assert read(exporter, offset, length) == content[offset : offset + length]
    assert read(exporter, exporter.size - 1, 1) == content[-1:]
    assert read(exporter, exporter.size, 0) == b""


def test_reads_may_go_on_in_many_threads(opened: Opener) -> None:
    exporter, content = opened(sparse_content(SIZE))
    step = 131_072
    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(
            lambda start: read(exporter, start, min(step, exporter.size - start)), range(0, exporter.size, step)
        )
        assert b"".join(parts) == content


def test_extents_cover_a_range_once_and_tell_the_truth_about_zeros(opened: Opener, kind: str) -> None:
    exporter, content = opened(sparse_content(SIZE))
    source = random.Random(3)
    ranges = [(0, exporter.size), (0, 0), (exporter.size, exporter.size), (exporter.size - 1, exporter.size)]
    ranges += [tuple(sorted(source.sample(range(exporter.size), 2))) for _ in range(30)]  # type: ignore[misc]
    for start, end in ranges:
        position = start
        for extent in exporter.extents(start, end):
            assert extent.offset == position
            assert extent.length > 0
            position += extent.length
            if extent.zero:
                part = content[extent.offset : extent.offset + extent.length]
                assert part.count(0) == len(part)
        assert position == end
    known = sum(extent.length for extent in exporter.extents(0, exporter.size) if extent.zero)
    if kind not in ("loop", "vhdx", "vpc"):  # these know nothing, nothing, and only blocks of 2 MiB
        assert known > SIZE // 8  # else every hole would be read


def test_an_empty_disk_is_a_disk(opened: Opener, kind: str) -> None:
    if kind == "vmdk":
        pytest.skip("the format has no empty disks")
    exporter, content = opened(b"")
    assert exporter.size == len(content) == 0
    assert list(exporter.extents(0, 0)) == []
    assert read(exporter, 0, 0) == b""
    exporter.check_unchanged()


def test_two_opens_of_an_unchanged_disk_have_one_identity(
    spec_of: Callable[[bytes], tuple[str, bytes]], kind: str
) -> None:
    spec, _ = spec_of(sparse_content(SIZE))
    identities = []
    for _ in range(2):
        exporter = open_exporter(spec)
        exporter.check_unchanged()
        identities.append(exporter.identity)
        exporter.close()
    assert identities[0] == identities[1]
    assert (identities[0] is None) == (kind in ("loop", "nbdkit", "qemu-nbd"))


def test_a_disk_without_change_maps_offers_none(opened: Opener) -> None:
    exporter, _ = opened(sparse_content(SIZE))
    assert exporter.change_maps() == []
    with pytest.raises(KeyError):
        list(exporter.changed_extents("none"))


def test_nothing_is_left_running_after_close_which_may_come_twice(
    spec_of: Callable[[bytes], tuple[str, bytes]],
) -> None:
    spec, _ = spec_of(sparse_content(SIZE))
    exporter = open_exporter(spec)
    exporter.close()
    exporter.close()
    assert own_servers() == []
