"""Mostly dead packs are emptied by background incrementals, within a budget, and nothing else changes by it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from manifests.entry import PackTable, ids_of
from manifests.names import pack_key
from manifests.pack import read_table
from pipeline.store.directory import DirectoryStore
from pipeline.store.fault import FaultyStore, Kill, Rule
from pipeline.transfer import compaction, index_writer
from pipeline.transfer.export_request import ChangedBlocks
from pipeline.transfer.index_copy import changed_only, copy_folder
from pipeline.transfer.index_file import IndexFile
from pipeline.transfer.index_reader import IndexReader, differences
from pipeline.transfer.pack_lists import packs_of
from pipeline.transfer.send import Entries, Sender
from pipeline.transfer.session import Stopwatch, read_journal
from transfer.killing import in_child
from transfer.support import CHUNK, FakeDisk, Workbench, make_disk, noise, poke, same

PACK = 16
"""Chunks of a pack in these tests."""
OVERHEAD = 4096
"""More than header, table and footer of such a pack."""


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manifests.pack.PACK_SIZE", PACK * CHUNK)


def disk_of(tmp_path: Path, chunks: int) -> Path:
    return make_disk(tmp_path / "source", chunks * CHUNK, {0: noise(chunks * CHUNK, "first")})


def rewrite(source: Path, chunks: list[int], seed: object) -> ChangedBlocks:
    """Change whole chunks; what a change map says of it (`since` is to be replaced)."""
    for chunk in chunks:
        poke(source, chunk * CHUNK, noise(CHUNK, f"{seed}/{chunk}"))
    return ChangedBlocks(1, tuple((chunk * CHUNK, CHUNK) for chunk in chunks))


def restored_equals(bench: Workbench, source: Path, sequence: int | None = None) -> None:
    out = bench.root / "check"
    [done] = bench.restore(sequence, out=out)
    assert same(source, Path(done.target))
    shutil.rmtree(out)


def packs_in_use(bench: Workbench, sequence: int | None = None) -> dict[bytes, int]:
    """Live chunks by pack."""
    found: dict[bytes, int] = {}
    for _chunk, pack, _offset, _length in bench.index(sequence).values():
        found[pack] = found.get(pack, 0) + 1
    return found


def sparse_disk(bench: Workbench, tmp_path: Path) -> tuple[Path, ChangedBlocks, bytes]:
    """A disk of four packs, and a change that leaves four chunks of the first pack; that pack."""
    source = disk_of(tmp_path, 4 * PACK)
    bench.export(source)
    pack = bench.index()[0][1]
    return source, rewrite(source, list(range(4, PACK)), "second"), pack


def test_a_journal_that_becomes_due_on_the_way_takes_changed_and_moved_chunks(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _changes, _pack = sparse_disk(bench, tmp_path)
    moving = False
    go_on = Sender.go_on

    def noticed(sender: Sender, index: Entries) -> None:
        nonlocal moving
        moving = True
        go_on(sender, index)

    monkeypatch.setattr(Sender, "go_on", noticed)
    monkeypatch.setattr(Stopwatch, "due", lambda stopwatch, count: moving)
    assert bench.export(source).disks[0].counters.resent
    assert moving
    restored_equals(bench, source)


@pytest.mark.parametrize("how", ["scan", "changes"])
def test_a_mostly_dead_pack_dies_whole_and_vanishes_from_the_list(
    bench: Workbench, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, changes, pack = sparse_disk(bench, tmp_path)
    result = bench.export(source, changes=changes if how == "changes" else None).disks[0]
    assert 4 * CHUNK <= result.counters.resent <= 4 * CHUNK + OVERHEAD
    assert 16 * CHUNK <= result.counters.sent <= 16 * CHUNK + 2 * OVERHEAD
    assert pack not in packs_in_use(bench)
    assert packs_of(bench.repository, bench.disk())[pack].live == 0
    bench.check_pack_lists()
    bench.verified()
    restored_equals(bench, source)
    monkeypatch.setattr(index_writer, "SEGMENT_ENTRIES", 16)
    rewrite(source, list(range(PACK, 3 * PACK)), "third")
    bench.export(source)
    assert not bench.disk().index.tiers, "the index was written anew"
    listed = packs_of(bench.repository, bench.disk())
    assert pack not in listed
    assert all(use.live for use in listed.values())
    bench.check_pack_lists()
    restored_equals(bench, source)


@pytest.mark.parametrize("how", ["scan", "changes", "both"])
def test_many_generations_stay_dense_within_the_budget_and_restore_bit_for_bit(
    bench: Workbench, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_writer, "SEGMENT_ENTRIES", 256)  # pages are rewritten now and then
    chunks = 24 * PACK
    source = disk_of(tmp_path, chunks)
    bench.export(source)
    chance = random.Random(5)
    changed = again = 0
    for turn in range(1, 41):
        known = rewrite(source, sorted(chance.sample(range(chunks), chunks // 12)), turn)
        given = ChangedBlocks(turn, known.extents) if how == "changes" or (how == "both" and turn % 2) else None
        promised = bench.export(source, changes=given, dry_run=True) if turn % 10 == 0 else None
        counters = bench.export(source, changes=given).disks[0].counters
        if promised:
            assert (promised.disks[0].counters.sent, promised.disks[0].counters.resent) == (
                counters.sent,
                counters.resent,
            )
        mine = counters.sent - counters.resent
        packs = counters.resent // (PACK * CHUNK) + 1
        assert counters.resent <= compaction.BUDGET * mine + packs * OVERHEAD
        changed, again = changed + mine, again + counters.resent
        if turn % 10 == 0:
            bench.check_pack_lists()
            restored_equals(bench, source)
            shutil.copy(source, tmp_path / f"kept-{turn}")
    assert 0.2 < again / changed < 0.5
    used = packs_in_use(bench)
    sizes = [use.stored for pack, use in packs_of(bench.repository, bench.disk()).items() if pack in used]
    assert sum(sizes) <= 1.8 * bench.disk().live_bytes
    bench.verified()
    for turn in range(10, 40, 10):
        restored_equals(bench, tmp_path / f"kept-{turn}", turn + 1)
    # A host that knows nothing finds nothing to send, and goes on as exactly.
    other = bench.elsewhere("other")
    assert other.export(source).disks[0].counters.sent == 0
    rewrite(source, list(range(0, chunks, 9)), "elsewhere")
    assert other.export(source).disks[0].counters.resent
    bench.check_pack_lists()
    rewrite(source, list(range(1, chunks, 9)), "here again")
    bench.export(source)
    bench.check_pack_lists()
    restored_equals(bench, source)


def test_a_final_export_never_compacts(bench: Workbench, tmp_path: Path) -> None:
    source, changes, pack = sparse_disk(bench, tmp_path)
    asked = FaultyStore(bench.store)
    result = bench.through(asked).export(source, changes=changes, final=True).disks[0]
    assert result.counters.resent == 0
    assert result.counters.sent <= 12 * CHUNK + OVERHEAD
    assert packs_in_use(bench)[pack] == 4
    assert not [key for verb, key in asked.history if verb == "get_range"]
    bench.check_pack_lists()
    # The next background export makes up for it, as far as it sends something.
    rewrite(source, list(range(PACK, PACK + 8)), "third")
    assert bench.export(source).disks[0].counters.resent >= 4 * CHUNK
    assert pack not in packs_in_use(bench)
    bench.check_pack_lists()
    restored_equals(bench, source)


def test_a_final_export_without_what_is_known_of_the_packs_asks_for_nothing(bench: Workbench, tmp_path: Path) -> None:
    source, changes, _pack = sparse_disk(bench, tmp_path)
    uses = copy_folder(bench.state, bench.repository, "vm", 0) / "uses"
    uses.unlink()
    asked = FaultyStore(bench.store)
    bench.through(asked).export(source, changes=changes, final=True)
    assert not [key for verb, key in asked.history if verb == "get" and key.startswith("pages/")]
    rewrite(source, list(range(PACK, PACK + 8)), "third")
    assert bench.export(source).disks[0].counters.resent
    bench.check_pack_lists()
    restored_equals(bench, source)


def test_nothing_is_sent_again_when_nothing_changed(bench: Workbench, tmp_path: Path) -> None:
    source, changes, _pack = sparse_disk(bench, tmp_path)
    bench.export(source, changes=changes, final=True)
    assert bench.export(source).disks[0].counters.sent == 0


def test_the_budget_empties_a_pack_in_part(bench: Workbench, tmp_path: Path) -> None:
    source, changes, pack = sparse_disk(bench, tmp_path)
    bench.export(source, changes=changes, final=True)
    for left, turn in ((3, 1), (2, 2), (1, 3), (0, 4)):
        rewrite(source, [2 * PACK, 2 * PACK + 1], turn)
        assert bench.export(source).disks[0].counters.resent <= CHUNK + OVERHEAD
        assert packs_in_use(bench).get(pack, 0) == left
        bench.check_pack_lists()
    restored_equals(bench, source)


def test_with_a_change_map_the_work_does_not_grow_with_the_disk(tmp_path: Path) -> None:
    figures: list[list[tuple[int, int, int]]] = []
    for size in (1 << 30, 1 << 40):
        bench = Workbench(tmp_path / str(size))
        figures.append([])
        step = size // 300 // CHUNK * CHUNK
        parts = {i * step: noise(CHUNK, i) for i in range(300)}
        bench.export(FakeDisk(size, parts))
        for turn in range(1, 13):
            changed = [i * step for i in random.Random(turn).sample(range(300), 40)]
            parts |= {offset: noise(CHUNK, (turn, offset)) for offset in changed}
            disk, asked = FakeDisk(size, parts), FaultyStore(bench.store)
            given = ChangedBlocks(turn, tuple((offset, 8) for offset in changed))
            result = bench.through(asked).export(disk, changes=given).disks[0]
            moved = result.counters.resent // CHUNK
            assert disk.read <= (len(changed) + moved) * CHUNK
            assert result.metadata <= 200 * len(changed) + (256 << 10)
            assert len([key for verb, key in asked.history if verb == "get_range"]) <= 16
            assert len(asked.history) < 40
            figures[-1].append((result.counters.chunks_new, moved, len(asked.history)))
        bench.check_pack_lists()
    # Longer positions compress differently, so that budgets differ by some bytes and the choice by a pack.
    for small, large in zip(*(map(sum, zip(*rows, strict=True)) for rows in figures), strict=True):
        assert small * 0.95 < large < small * 1.05
    assert sum(moved for _new, moved, _requests in figures[0]) > 40


def test_a_pack_of_another_machine_is_left_alone(bench: Workbench, tmp_path: Path) -> None:
    source = disk_of(tmp_path, 4 * PACK)
    bench.export(source, machine="golden")
    bench.export(source, bases=(bench.point(machine="golden"),))
    rewrite(source, list(range(4, PACK)), "mine")
    for turn in range(2):
        rewrite(source, list(range(2 * PACK, 2 * PACK + 8)), turn)
        asked = FaultyStore(bench.store)
        assert bench.through(asked).export(source).disks[0].counters.resent == 0
        ranges = [key for verb, key in asked.history if verb == "get_range"]
        assert len(set(ranges)) == (1 if turn == 0 else 0), "asked once whose it is"
    bench.check_pack_lists()
    restored_equals(bench, source)


@pytest.mark.parametrize("how", ["scan", "changes"])
def test_positions_that_share_a_chunk_are_moved_too(
    bench: Workbench, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_SWEPT_LEAVES", 1)
    monkeypatch.setattr("pipeline.transfer.index_file.LEAF_POSITIONS", 4096)
    chunks = 4 * PACK
    far = 2 * 4096 * CHUNK
    first = noise(chunks * CHUNK, "first")
    # Copies of chunks 0 and 1 lie where no table names them, one of them two leaves away.
    source = make_disk(tmp_path / "source", far + 2 * CHUNK, {0: first, far: first[: 2 * CHUNK]})
    bench.export(source)
    index = bench.index()
    pack = index[0][1]
    assert index[far // CHUNK][1] == pack
    known = rewrite(source, list(range(4, PACK)), "second")
    for turn in range(5):
        extra = rewrite(source, list(range(PACK, PACK + 12)), turn)
        given = ChangedBlocks(turn + 1, known.extents + extra.extents) if how == "changes" else None
        bench.export(source, changes=given)
        bench.check_pack_lists()
        if how == "scan":
            break
    assert pack not in packs_in_use(bench)
    restored_equals(bench, source)


@pytest.mark.parametrize("what", ["missing", "footer", "table", "cut"])
def test_a_damaged_pack_is_no_reason_for_an_export_to_fail(bench: Workbench, tmp_path: Path, what: str) -> None:
    source, changes, pack = sparse_disk(bench, tmp_path)
    key = pack_key(pack)
    kept = bytes(bench.store.get(key))
    bench.store.delete_many([key])
    if what != "missing":
        at = len(kept) - (5 if what == "footer" else 200)
        damaged = kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1 :]
        bench.store.put(key, kept[:-100] if what == "cut" else damaged)
    resent = bench.export(source, changes=changes).disks[0].counters.resent
    assert resent == 0 or what == "table", "a table is a hint: it may name positions that are not there"
    bench.store.delete_many([key])
    bench.store.put(key, kept)
    bench.check_pack_lists()
    restored_equals(bench, source)


def test_what_cannot_be_read_again_stays_where_it_is(bench: Workbench) -> None:
    first = noise(4 * PACK * CHUNK, "first")
    bench.export(FakeDisk(len(first), {0: first}))
    second = first[: 4 * CHUNK] + noise(12 * CHUNK, "second") + first[PACK * CHUNK :]
    dying = FakeDisk(len(first), {0: second}, bad=[(CHUNK + 512, 512)])
    changes = ChangedBlocks(1, ((4 * CHUNK, 12 * CHUNK),))
    result = bench.export(dying, changes=changes)
    assert result.disks[0].unreadable == []
    assert not result.report.warnings
    first_pack = bench.index(1)[0][1]
    assert [at for at, entry in bench.index().items() if entry[1] == first_pack] == [1]
    bench.check_pack_lists()


@pytest.mark.parametrize("consistency", ["crash", "torn"])
def test_a_change_that_the_map_hides_is_told_and_does_not_move(
    bench: Workbench, tmp_path: Path, consistency: str
) -> None:
    source, changes, pack = sparse_disk(bench, tmp_path)
    shutil.copy(source, tmp_path / "wanted")
    poke(source, 2 * CHUNK, b"nobody said so")
    poke(source, 3 * CHUNK, bytes(CHUNK))
    result = bench.export(source, changes=changes, consistency=consistency)
    assert [("2 chunks differ" in warning) for warning in result.report.warnings] == (
        [True] if consistency == "crash" else []
    )
    assert packs_in_use(bench)[pack] == 2
    bench.check_pack_lists()
    restored_equals(bench, tmp_path / "wanted")
    assert bench.export(source).disks[0].counters.sent > CHUNK
    restored_equals(bench, source)


@pytest.mark.parametrize("offset", [0, 40, 60, -1])
@pytest.mark.parametrize("kind", ["lost", "cut", "damaged", "old"])
def test_what_is_known_of_the_packs_is_made_anew_when_it_is_damaged(
    bench: Workbench, tmp_path: Path, kind: str, offset: int
) -> None:
    source, changes, pack = sparse_disk(bench, tmp_path)
    path = copy_folder(bench.state, bench.repository, "vm", 0) / "uses"
    data = bytearray(path.read_bytes())
    if kind == "old":
        bench.export(source, changes=rewrite(source, [3 * PACK], "old"), final=True)
        changes = ChangedBlocks(2, changes.extents)
    if kind == "damaged":
        data[offset] ^= 1
    path.unlink()
    if kind != "lost":
        path.write_bytes(data[:-7] if kind == "cut" else data)
    assert bench.export(source, changes=changes).disks[0].counters.resent >= 4 * CHUNK
    assert pack not in packs_in_use(bench)
    bench.check_pack_lists()
    restored_equals(bench, source)


def test_a_copy_of_a_point_with_the_same_content_learns_where_the_chunks_are(bench: Workbench, tmp_path: Path) -> None:
    """Two hosts: while one looks away the other goes there and back, and empties packs on the way."""
    source, changes, _pack = sparse_disk(bench, tmp_path)
    before = tmp_path / "before"
    bench.export(source, changes=changes, final=True)
    shutil.copy(source, before)
    other = bench.elsewhere("other")
    rewrite(source, list(range(2 * PACK, 3 * PACK)), "away")
    assert other.export(source).disks[0].counters.resent
    shutil.copy(before, source)
    other.export(source)
    assert bench.disk().digest == bench.disk(2).digest
    rewrite(source, list(range(3 * PACK, 4 * PACK)), "mine")
    bench.export(source)
    bench.check_pack_lists()
    restored_equals(bench, source)


def test_a_chunk_that_only_moved_is_no_difference_for_who_has_the_old_entries(bench: Workbench, tmp_path: Path) -> None:
    source, changes, _pack = sparse_disk(bench, tmp_path)
    bench.restore()
    bench.export(source, changes=changes)
    packs = PackTable()
    old, new = (IndexReader(bench.repository, bench.disk(n), packs) for n in (1, 2))
    named = [int(p) for positions, _rows in differences(old, new) for p in positions]
    assert named == list(range(PACK))
    [stage] = bench.out.rglob("copy")
    _head, copy = IndexFile.open(stage)
    moved = [int(p) for positions, _rows in changed_only(copy, differences(old, new)) for p in positions]
    copy.close()
    assert moved == list(range(4, PACK))


def journaled(bench: Workbench) -> set[bytes]:
    """Ids of the chunks that attempts at point 2 journaled."""
    found: set[bytes] = set()
    for info in bench.store.list("sessions/"):
        if "/0000000002-" in info.key and "/journal/" in info.key:
            ids = ids_of(read_journal(bench.repository, info.key, PackTable()).rows)
            found.update(ids[i : i + 32] for i in range(0, len(ids), 32))
    return found


def sent_since(bench: Workbench, before: set[str]) -> set[bytes]:
    found: set[bytes] = set()
    for info in list(bench.store.list("packs/")):
        if info.key not in before:
            found.update(read_table(bench.store.get(info.key), sealing=bench.repository.sealing, name=info.key).ids)
    return found


@pytest.mark.parametrize("touch", [False, True], ids=["identical", "touched"])
@pytest.mark.parametrize("how", ["scan", "changes"])
def test_a_compaction_killed_at_any_store_operation_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, touch: bool
) -> None:
    monkeypatch.setattr("pipeline.transfer.send.JOURNAL_BYTES", 1)
    monkeypatch.setattr("os.fsync", lambda _fd: None)
    bench = Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True))
    source = disk_of(tmp_path, 4 * PACK)
    bench.export(source)
    old = bench.index()
    known = rewrite(source, [*range(4, PACK), *range(PACK + 3, 2 * PACK)], "second")
    changes = known if how == "changes" else None
    for part in ("store", "state"):
        shutil.copytree(tmp_path / part, tmp_path / "kept" / part)
    counting = FaultyStore(bench.store)
    assert bench.through(counting).export(source, changes=changes).disks[0].counters.resent
    resumed = 0
    for nth in range(1, len(counting.history) + 1):
        for part in ("store", "state"):
            shutil.rmtree(tmp_path / part)
            shutil.copytree(tmp_path / "kept" / part, tmp_path / part)
        now = bench.through(DirectoryStore(tmp_path / "store"))
        rule = Rule(Kill(after=nth % 2 == 0), nth=nth)
        in_child(
            lambda b=now, r=rule: b.through(FaultyStore(b.store, [r])).export(source, changes=changes)  # type: ignore[misc]
        )
        before, stored = {info.key for info in now.store.list("packs/")}, journaled(now)
        if touch:  # another identity: what was journaled is read and compared again
            poke(source, 0, source.read_bytes()[:16])
        now.export(source, changes=changes if now.point().manifest.sequence == 1 else None)
        assert not sent_since(now, before) & stored, nth
        resumed += bool(stored)
        used = packs_in_use(now)
        assert old[0][1] not in used
        assert old[PACK][1] not in used
        now.check_pack_lists()
        now.verified()
        restored_equals(now, source)
    assert resumed > 5
