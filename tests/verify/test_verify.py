"""Checks find what is wrong, and where, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from transfer.support import CHUNK, MIB, FakeDisk, Workbench, assert_clean, make_disk, noise, poke, punch, text

from manifests.envelope import Kind
from manifests.names import manifest_key, pack_key, page_key
from manifests.packlist import encode_pack_list
from pipeline.errors import StoreUnavailable
from pipeline.exporters.open import open_exporter
from pipeline.store.fault import Fail, FaultyStore, Rule
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.pack_lists import packs_of
from pipeline.verify import listing
from pipeline.verify.disk import verify_disk
from pipeline.verify.listing import verify_listing
from pipeline.verify.reading import verify_reading
from pipeline.verify.report import VerifyReport

SIZE = 4 * MIB + 1000


@pytest.fixture
def source(bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Exported twice: point 2 has a tier over the pages of point 1, and several packs."""
    monkeypatch.setattr("manifests.pack.PACK_SIZE", 8 * CHUNK)
    source = make_disk(tmp_path / "source", SIZE, {0: noise(MIB, 1), 2 * MIB: text(MIB, 2), SIZE - 9: b"end"})
    bench.export(source)
    poke(source, 5 * CHUNK, noise(3 * CHUNK, 3))
    bench.export(source, final=True)
    return source


def compare(bench: Workbench, path: Path, sequence: int = 2) -> VerifyReport:
    exporter = open_exporter(str(path))
    try:
        point = bench.point(sequence)
        return verify_disk(bench.repository, point, point.manifest.disks[0], exporter, parallel=2)
    finally:
        exporter.close()


@pytest.mark.parametrize("few", [True, False], ids=["asked one by one", "listed"])
def test_a_listing_finds_every_object_that_is_missing_or_short(
    bench: Workbench, source: Path, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not few:
        monkeypatch.setattr(listing, "_HEADS", 0)
    point = bench.point()
    assert_clean(verify_listing(bench.repository, point))
    wanted = {pack_key(pack) for _c, pack, _o, _n in bench.index().values()}
    wanted |= {page_key(i) for i in IndexReader(bench.repository, bench.disk()).objects()}
    assert len(wanted) > 6
    for key in wanted:
        good = bytes(bench.store.get(key))
        bench.store.delete_many([key])
        problems = verify_listing(bench.repository, point).problems
        assert any(key in p and "missing" in p for p in problems), key
        assert all("vm@2 disk 0" in p for p in problems)
        if key.startswith("packs/"):
            bench.store.put(key, good[:-1])
            [problem] = verify_listing(bench.repository, point).problems
            assert key in problem
            assert f"{len(good) - 1} bytes instead of {len(good)}" in problem
        bench.store.put(key, good)
    assert_clean(verify_listing(bench.repository, point))


def test_a_store_that_cannot_be_asked_is_no_finding(bench: Workbench, source: Path) -> None:
    for verb in ("head", "get"):
        faulty = FaultyStore(bench.store, [Rule(Fail(StoreUnavailable("down")), verb=verb)])
        with pytest.raises(StoreUnavailable):
            verify_listing(bench.through(faulty).repository, bench.point())
    with pytest.raises(StoreUnavailable):
        verify_reading(bench.through(faulty).repository, bench.point(), parallel=2)


def test_reading_finds_a_flipped_byte_down_to_the_range(bench: Workbench, source: Path) -> None:
    index = bench.index()
    assert_clean(verify_reading(bench.repository, bench.point(), parallel=2))
    for position in (0, 5, 15, 33, max(index)):
        _chunk, pack, offset, length = index[position]
        good = bytes(bench.store.get(pack_key(pack)))
        broken = bytearray(good)
        broken[offset + length // 2] ^= 1
        bench.store.put(pack_key(pack), broken)
        problems = verify_reading(bench.repository, bench.point(), parallel=2).problems
        sharing = [p for p, entry in index.items() if entry[1:3] == (pack, offset)]
        assert len(problems) == len(sharing)
        end = min((position + 1) * CHUNK, SIZE)
        start = position * CHUNK
        assert any(f"vm@2 disk 0, {end - start} bytes from {start}: {pack_key(pack)}" in p for p in problems)
        bench.store.put(pack_key(pack), good)


def test_reading_finds_what_no_chunk_of_the_point_covers(bench: Workbench, source: Path) -> None:
    """The table and footer of a pack, for salvage."""
    _chunk, pack, _o, _n = bench.index()[0]
    good = bytes(bench.store.get(pack_key(pack)))
    bench.store.put(pack_key(pack), good[:-5] + b"\0" + good[-4:])
    [problem] = verify_reading(bench.repository, bench.point(), parallel=2).problems
    assert pack_key(pack) in problem
    assert "damaged outside" in problem


def test_reading_names_every_range_of_a_missing_pack(bench: Workbench, source: Path) -> None:
    index = bench.index()
    _chunk, pack, _o, _n = index[0]
    bench.store.delete_many([pack_key(pack)])
    problems = verify_reading(bench.repository, bench.point(), parallel=2).problems
    assert len(problems) == sum(entry[1] == pack for entry in index.values())
    assert all(pack_key(pack) in p and "missing" in p for p in problems)


def test_a_damaged_disk_does_not_hide_the_others(bench: Workbench, source: Path, tmp_path: Path) -> None:
    second = make_disk(tmp_path / "second", MIB, {0: noise(MIB, 7)})
    bench.export(source, second)
    lost = page_key(bytes.fromhex(bench.disk(3, 0).index.pages))
    bench.store.delete_many([lost])
    _chunk, pack, _o, _n = bench.index(3, 1)[0]
    bench.store.delete_many([pack_key(pack)])
    for report in (
        verify_listing(bench.repository, bench.point(3)),
        verify_reading(bench.repository, bench.point(3), parallel=2),
    ):
        text = "\n".join(report.problems)
        assert f"vm@3 disk 0: {lost}" in text
        assert "vm@3 disk 1" in text
        assert pack_key(pack) in text


def test_an_equal_disk_has_no_differing_ranges(bench: Workbench, source: Path) -> None:
    assert_clean(compare(bench, source))
    assert not compare(bench, source, 1).ok
    bench.restore(1)
    assert_clean(compare(bench, bench.restored(), 1))


def test_exactly_the_differing_ranges_are_told(bench: Workbench, source: Path) -> None:
    poke(source, 0, b"\0")
    poke(source, 3 * CHUNK - 1, b"xy")
    punch(source, 2 * MIB + 4 * CHUNK, 2 * CHUNK)
    poke(source, MIB + 7 * CHUNK, b"in a hole")
    poke(source, SIZE - 1, b"!")
    assert compare(bench, source).ranges == [
        (0, CHUNK),
        (2 * CHUNK, 2 * CHUNK),
        (MIB + 7 * CHUNK, CHUNK),
        (2 * MIB + 4 * CHUNK, 2 * CHUNK),
        (4 * MIB, SIZE - 4 * MIB),
    ]


def test_a_larger_disk_is_equal_when_the_rest_is_zero(bench: Workbench, source: Path) -> None:
    with source.open("r+b") as file:
        file.truncate(SIZE + 3 * MIB)
    assert_clean(compare(bench, source))
    poke(source, SIZE + 2 * MIB, b"more")
    start = (SIZE + 2 * MIB) // CHUNK * CHUNK
    assert compare(bench, source).ranges == [(start, CHUNK)]
    poke(source, SIZE + 1, b"more")
    assert compare(bench, source).ranges == [(4 * MIB, CHUNK), (start, CHUNK)]


@pytest.mark.parametrize("size", [SIZE - 1, 3 * MIB, 2 * MIB + 5 * CHUNK + 17, 17, 0])
def test_a_smaller_disk_differs_where_it_ends(bench: Workbench, source: Path, size: int) -> None:
    with source.open("r+b") as file:
        file.truncate(size)
    report = compare(bench, source)
    assert not report.ok
    assert f"has {size} bytes" in report.problems[0]
    covered = 0
    for offset, length in report.ranges:
        assert offset >= covered, "ranges do not overlap"
        covered = offset + length
    assert covered == SIZE
    assert report.ranges[0][0] in (size, size // CHUNK * CHUNK)
    assert len(report.ranges) == 1


def test_an_empty_disk_of_a_point_without_data_is_equal(bench: Workbench, tmp_path: Path) -> None:
    empty = make_disk(tmp_path / "empty", 0)
    hole = make_disk(tmp_path / "hole", 9 * MIB)
    bench.export(empty, hole)
    point = bench.point()
    for number, path in enumerate((empty, hole)):
        exporter = open_exporter(str(path))
        assert_clean(verify_disk(bench.repository, point, point.manifest.disks[number], exporter))
        exporter.close()
    bench.verified()


def test_a_huge_sparse_disk_is_compared_quickly(bench: Workbench) -> None:
    size = 16 << 40
    parts = {0: b"a", 5 << 40: b"b", size - 1: b"c"}
    disk = FakeDisk(size, parts)
    bench.export(disk)
    point = bench.point()
    assert_clean(verify_disk(bench.repository, point, point.manifest.disks[0], disk, parallel=2))
    del disk.parts[5 << 40]
    disk.parts[7 << 40] = b"d"
    report = verify_disk(bench.repository, point, point.manifest.disks[0], disk, parallel=2)
    assert report.ranges == [(5 << 40, CHUNK), (7 << 40, CHUNK)]


def test_a_disk_that_cannot_be_read_in_places_is_not_equal(bench: Workbench, source: Path) -> None:
    content = source.read_bytes()
    disk = FakeDisk(SIZE, {0: content}, bad=[(3 * CHUNK + 5, 512)])
    point = bench.point()
    report = verify_disk(bench.repository, point, point.manifest.disks[0], disk, parallel=2)
    assert report.ranges == [(3 * CHUNK, CHUNK)]
    assert any("cannot read" in p for p in report.problems)


def test_a_pack_that_no_list_names_is_told_before_a_collection_takes_it(bench: Workbench, source: Path) -> None:
    """Collections go by pack lists alone. Everything can be read as long as they did not."""
    point = bench.point()
    disk = point.manifest.disks[0]
    used = {pack for _c, pack, _o, _n in bench.index().values()}
    uses = packs_of(bench.repository, disk)
    left_out = min(used)
    plain = encode_pack_list({pack: use for pack, use in uses.items() if pack != left_out})
    short, _length = bench.repository.put_page_object(Kind.PACK_LIST, plain)
    wrong = point.manifest.model_copy(
        update={"disks": (disk.model_copy(update={"packs": (short.hex(),), "base_lists": 1}),)}
    )
    bench.store.put(manifest_key("vm", 2), wrong.encode(bench.repository.sealing))
    [problem] = verify_reading(bench.repository, bench.point(), parallel=2).problems
    assert pack_key(left_out) in problem
    assert "no pack list" in problem
