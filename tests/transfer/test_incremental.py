"""Incremental exports send what changed, and every point stays complete."""

from __future__ import annotations

import random
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from manifests.manifest import Disk
from pipeline.errors import FailbackError
from pipeline.exporters.open import open_exporter
from pipeline.store.fault import FaultyStore
from pipeline.transfer import index_writer
from pipeline.transfer.export_request import ChangedBlocks
from pipeline.transfer.index_copy import claimed, copy_folder, known_sequence
from pipeline.transfer.index_reader import IndexReader
from transfer.support import CHUNK, MIB, FakeDisk, Workbench, make_disk, noise, poke, punch, same, text

SIZE = 6 * MIB + 1000


def source_of(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "source", SIZE, {0: text(MIB, 1), 2 * MIB: noise(MIB, 2), SIZE - 500: b"tail"})


def restored_equals(bench: Workbench, source: Path, sequence: int | None = None) -> None:
    out = bench.root / f"out-{random.random()}"
    [done] = bench.restore(sequence, out=out)
    assert same(source, Path(done.target))
    shutil.rmtree(out)


@pytest.mark.parametrize("how", ["scan", "changes"])
def test_changes_of_every_kind_are_found(bench: Workbench, tmp_path: Path, how: str) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    extents = []

    def change(offset: int, data: bytes) -> None:
        poke(source, offset, data)
        extents.append((offset, len(data)))

    change(100, b"a few bytes")
    change(3 * CHUNK - 5, b"over a border")
    change(5 * CHUNK, bytes(2 * CHUNK))  # data becomes zeros
    change(4 * MIB + 77, noise(3 * CHUNK, 3))  # a hole becomes data
    change(SIZE - 1, b"!")
    punch(source, 2 * MIB, 4 * CHUNK)  # data becomes a hole
    extents.append((2 * MIB, 4 * CHUNK))
    punch(source, 2 * MIB + 6 * CHUNK + 100, 300)  # discarded inside a chunk
    extents.append((2 * MIB + 6 * CHUNK + 100, 300))
    given = ChangedBlocks(1, tuple(extents)) if how == "changes" else None
    result = bench.export(source, changes=given)
    assert result.disks[0].mode == ("changed blocks" if given else "incremental")
    assert result.disks[0].counters.sent < 600_000
    restored_equals(bench, source)
    bench.verified()
    bench.check_pack_lists()


def test_nothing_changed_sends_nothing(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    first = bench.export(source)
    again = bench.export(source)
    assert again.manifest is not None
    assert first.manifest is not None
    assert again.disks[0].counters.sent == 0
    assert again.disks[0].metadata == 0
    assert again.manifest.disks[0].digest == first.manifest.disks[0].digest


def test_a_whole_disk_that_becomes_a_hole_is_zeros(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    make_disk(source, SIZE)
    bench.export(source)
    restored_equals(bench, source)
    assert bench.index() == {}
    assert bench.disk().live_bytes == 0


def test_changes_that_begin_at_another_point_are_not_believed(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    poke(source, 100, b"one")
    bench.export(source)
    poke(source, MIB // 2, b"two")
    result = bench.export(source, changes=ChangedBlocks(1, ()))
    assert result.disks[0].mode == "incremental"
    assert "every block is compared" in result.disks[0].reason
    restored_equals(bench, source)


@pytest.mark.parametrize("size", [SIZE + 3 * MIB, SIZE + 1, SIZE - 1, 2 * MIB + 5, 1, 0])
def test_a_disk_that_grew_or_shrank_since_sends_only_what_is_new(bench: Workbench, tmp_path: Path, size: int) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    with source.open("r+b") as file:
        file.truncate(size)
    if size > SIZE:
        poke(source, size - 1, b"e")
    result = bench.export(source)
    assert result.disks[0].mode == "full"
    assert f"had {SIZE} bytes" in result.disks[0].reason
    assert result.disks[0].counters.sent < 3 * CHUNK
    restored_equals(bench, source)
    bench.verified()
    bench.check_pack_lists()
    restored_equals_first = bench.restore(1, out=tmp_path / "first")
    assert Path(restored_equals_first[0].target).stat().st_size == SIZE


def test_sixty_incrementals_stay_few_tiers_and_whole(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_writer, "SEGMENT_ENTRIES", 16)  # many segments a tier, pages rewritten
    size = 8 * MIB + 777
    source = make_disk(tmp_path / "source", size, {0: noise(4 * MIB, 0)})
    chance = random.Random(7)
    bench.export(source)
    rewrites = 0
    directories = {bench.disk().index.pages}
    for sequence in range(2, 62):
        extents = []
        for _ in range(chance.choice([1, 1, 2, 5])):
            offset = chance.randrange(size)
            length = min(chance.choice([1, 700, CHUNK, 3 * CHUNK + 5]), size - offset)
            kind = chance.random()
            if kind < 0.6:
                poke(source, offset, chance.randbytes(length))
            elif kind < 0.8:
                poke(source, offset, bytes(length))
            else:
                punch(source, offset, length)
            extents.append((offset, length))
        given = ChangedBlocks(sequence - 1, tuple(extents)) if chance.random() < 0.5 else None
        bench.export(source, changes=given)
        disk = bench.disk()
        counts = [t.count for t in disk.index.tiers]
        assert len(counts) <= index_writer.MAX_TIERS
        assert all(old >= index_writer.TIER_RATIO * new for new, old in pairwise(counts)), counts
        assert sum(counts) <= index_writer.REWRITE_SHARE * disk.data_bytes / CHUNK + 16
        directories.add(disk.index.pages)
        if sequence % 10 == 0:
            restored_equals(bench, source)
            bench.check_pack_lists()
            shutil.copy(source, tmp_path / f"kept-{sequence}")
    rewrites = len(directories) - 1
    assert rewrites >= 1
    for sequence in range(10, 61, 10):
        restored_equals(bench, tmp_path / f"kept-{sequence}", sequence)
    bench.verified()
    # A host that knows nothing sees the same.
    assert bench.elsewhere("other").export(source).disks[0].counters.sent == 0


def test_final_exports_never_exceed_four_tiers_and_never_rewrite_pages(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    pages = bench.disk().index.pages
    for turn in range(7):
        poke(source, turn * 3 * CHUNK, noise(2 * CHUNK, f"final {turn}"))
        bench.export(source, final=True)
        disk = bench.disk()
        assert len(disk.index.tiers) == min(turn + 1, 4)
        assert disk.index.pages == pages
        assert bench.point().manifest.final
        bench.check_pack_lists()
    restored_equals(bench, source)
    poke(source, 0, b"background again")
    bench.export(source)
    restored_equals(bench, source)
    bench.check_pack_lists()


def test_many_exports_keep_the_pack_lists_few(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    for turn in range(40):
        poke(source, (turn % 16) * CHUNK, noise(10, turn))
        bench.export(source)
        assert len(bench.disk().packs) <= 17
    bench.check_pack_lists()


def copy_of(bench: Workbench) -> Path:
    return copy_folder(bench.state, bench.repository, "vm", 0)


def damage(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= 0x10
    path.write_bytes(data)


def test_a_copy_that_another_export_has_is_left_alone(bench: Workbench, tmp_path: Path) -> None:
    """It may have been taken for dead while it slept, and may wake up in the middle of this one."""
    source = source_of(tmp_path)
    bench.export(source)
    copy = copy_of(bench)
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    with claimed(copy) as ours:
        assert ours
        poke(source, 3 * CHUNK, noise(10, "later"))
        bench.export(source)
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    restored_equals(bench, source)
    poke(source, 5 * CHUNK, noise(10, "later still"))
    bench.export(source)
    assert known_sequence(copy) == 3
    restored_equals(bench, source)
    bench.check_pack_lists()


DAMAGES = [
    *(("rows", offset) for offset in (0, 31, 33, 37, 41, 45, 47, 48 * 20 + 8, 48 * 40 + 33)),
    *(("nodes", offset) for offset in (0, 33)),
    ("leaves", 5),
    ("places", 3),
    ("packs", 7),
    *(("head", offset) for offset in range(3, 400, 29)),
]


@pytest.mark.parametrize(("part", "offset"), DAMAGES)
def test_a_damaged_local_copy_never_leads_to_a_missed_change(
    bench: Workbench, tmp_path: Path, part: str, offset: int
) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    damage(copy_of(bench) / part, offset)
    poke(source, 0, b"changed")
    poke(source, 2 * MIB + 5 * CHUNK, noise(CHUNK, 9))
    bench.export(source)
    restored_equals(bench, source)
    bench.check_pack_lists()
    assert bench.point().manifest.parent is not None


@pytest.mark.parametrize("part", ["rows", "nodes", "leaves", "places", "packs", "head"])
@pytest.mark.parametrize("kind", ["lost", "cut", "empty"])
def test_a_local_copy_that_lost_a_part_is_made_anew(bench: Workbench, tmp_path: Path, part: str, kind: str) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    path = copy_of(bench) / part
    data = path.read_bytes()
    path.unlink()
    if kind != "lost":
        path.write_bytes(data[: len(data) // 2] if kind == "cut" else b"")
    poke(source, 3 * CHUNK, b"changed")
    assert bench.export(source).disks[0].counters.sent < CHUNK
    restored_equals(bench, source)
    bench.check_pack_lists()


def test_a_stale_local_copy_is_brought_up_to_date(bench: Workbench, tmp_path: Path) -> None:
    """Another host exported in between: this one's copy is of an older point."""
    source = source_of(tmp_path)
    other = bench.elsewhere("other")
    bench.export(source)
    for turn in range(3):
        poke(source, turn * 5 * CHUNK, noise(100, turn))
        other.export(source)
    poke(source, 2 * MIB, b"mine")
    result = bench.export(source)
    assert result.disks[0].mode == "incremental"
    assert result.disks[0].counters.sent < 2 * CHUNK
    restored_equals(bench, source)
    bench.check_pack_lists()


def test_a_copy_put_back_from_an_old_backup_is_noticed(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    shutil.copytree(copy_of(bench), tmp_path / "old")
    poke(source, 0, b"two")
    bench.export(source)
    poke(source, CHUNK, b"three")
    for part in ("rows", "nodes", "places", "leaves", "packs"):
        shutil.copy(tmp_path / "old" / part, copy_of(bench) / part)
    poke(source, 0, text(MIB, 1)[:3])  # back to what the old copy says
    bench.export(source)
    restored_equals(bench, source)


def test_an_earlier_point_that_is_damaged_does_not_stop_an_export(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    other = bench.elsewhere("other")
    bench.export(source)
    poke(source, 0, b"two")
    bench.export(source, final=True)
    bench.store.list("pages/")
    for turn in range(2):
        poke(source, turn * CHUNK, b"%d" % turn)
        other.export(source)
    kept = set(objects(bench, bench.disk()))
    gone = [key for key in objects(bench, bench.disk(2)) if key not in kept]
    assert gone
    bench.store.delete_many(gone)
    bench.export(source)
    restored_equals(bench, source)


def objects(bench: Workbench, disk: Disk) -> list[str]:
    return [f"pages/{i.hex()[:2]}/{i.hex()}" for i in IndexReader(bench.repository, disk).objects()]


def test_a_base_spares_the_chunks_that_two_machines_share(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    bench.export(source, machine="golden")
    clone = tmp_path / "clone"
    shutil.copy(source, clone)
    poke(clone, 3 * CHUNK, noise(CHUNK, 5))
    result = bench.export(clone, bases=(bench.point(machine="golden"),))
    assert result.disks[0].counters.sent < 2 * CHUNK
    assert result.manifest is not None
    assert result.manifest.bases == ("golden@1",)
    restored_equals(bench, clone)
    bench.verified()
    bench.check_pack_lists()


def test_a_base_helps_an_incremental_too(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    bench.export(source, machine="golden")
    mine = make_disk(tmp_path / "mine", SIZE)
    bench.export(mine)
    shutil.copy(source, mine)
    result = bench.export(mine, bases=(bench.point(machine="golden"),))
    assert result.disks[0].counters.sent == 0
    restored_equals(bench, mine)
    bench.verified()
    bench.check_pack_lists()


def test_content_that_moved_to_a_hole_of_the_same_disk_is_sent_once_a_session(bench: Workbench, tmp_path: Path) -> None:
    data = noise(4 * CHUNK, 1)
    source = make_disk(tmp_path / "source", 4 * MIB, {0: data, MIB: data, 2 * MIB: data})
    assert bench.export(source).disks[0].counters.sent < 5 * CHUNK
    restored_equals(bench, source)


@pytest.mark.parametrize("size", [1 << 30, 1 << 40])
def test_a_change_map_costs_the_same_on_every_size_of_disk(bench: Workbench, tmp_path: Path, size: int) -> None:
    step = size // 1000 // CHUNK * CHUNK
    parts = {i * step: b"%d" % i for i in range(1000)}
    bench.export(FakeDisk(size, parts))
    changed = {offset: b"changed" + data for offset, data in parts.items()}
    counting = FaultyStore(bench.store)
    seen = bench.through(counting)
    disk = FakeDisk(size, changed)
    result = seen.export(disk, changes=ChangedBlocks(1, tuple((o, 8) for o in changed)))
    assert result.disks[0].metadata <= 200 * 1000 + (256 << 10)
    assert disk.read == 1000 * CHUNK
    assert len(counting.history) < 20
    assert not [key for verb, key in counting.history if verb.startswith("get") and key.startswith("pages/")]


def test_full_sends_everything_though_a_parent_exists(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    result = bench.export(source, full=True)
    assert result.disks[0].mode == "full"
    assert result.disks[0].counters.sent > MIB
    assert result.manifest is not None
    assert result.manifest.parent is None
    restored_equals(bench, source)


def test_another_chunk_size_is_a_new_beginning(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    result = bench.export(source, chunk_size=256 << 10)
    assert "has chunks of 65536 bytes" in result.disks[0].reason
    restored_equals(bench, source)
    bench.restore(1)
    [done] = bench.restore(2)
    assert done.mode == "hashed"
    assert same(source, bench.restored())


def test_a_dry_run_stores_nothing_and_says_how_much(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    for turn in range(2):
        before = [info.key for info in bench.store.list("")]
        promised = bench.export(source, dry_run=True)
        assert promised.manifest is None
        assert [info.key for info in bench.store.list("")] == before
        kept = bench.export(source)
        assert promised.disks[0].counters.sent == kept.disks[0].counters.sent
        poke(source, turn * CHUNK, b"next")


def test_a_disk_that_joins_a_machine_is_full_and_the_others_stay_incremental(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    second = make_disk(tmp_path / "second", MIB, {0: noise(MIB, 3)})
    result = bench.export(source, second)
    assert [d.mode for d in result.disks] == ["incremental", "full"]
    assert "has no disk 1" in result.disks[1].reason
    result = bench.export(source)
    assert [d.mode for d in result.disks] == ["incremental"]


def test_a_closed_exporter_leaves_no_point(bench: Workbench, tmp_path: Path) -> None:
    exporter = open_exporter(str(source_of(tmp_path)))
    exporter.close()
    with pytest.raises((FailbackError, OSError)):
        bench.export(exporter)
    assert not list(bench.store.list("manifests/"))
