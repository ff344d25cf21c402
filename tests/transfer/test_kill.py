"""Killed at any moment, the same command goes on at once, sends nothing again that was journaled, and ends right."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from manifests.entry import PackTable, ids_of
from manifests.pack import read_table
from pipeline.exporters.raw import RawExporter
from pipeline.store.directory import DirectoryStore
from pipeline.store.fault import FaultyStore, Kill, Rule
from pipeline.transfer import local
from pipeline.transfer import move as move_module
from pipeline.transfer.index_file import IndexFile
from pipeline.transfer.session import read_journal
from pipeline.transfer.stage import Done, Stage
from pipeline.writers.raw import RawWriter
from transfer.killing import in_child, kill_at
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, poke, punch, same, text

SIZE = 2 * MIB + 999


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """Small packs, a journal after each, acknowledged at once; a store that outlives a process."""
    monkeypatch.setattr("manifests.pack.PACK_SIZE", 4 * CHUNK)
    monkeypatch.setattr("pipeline.transfer.send.JOURNAL_BYTES", 1)
    monkeypatch.setattr(move_module, "_ACKNOWLEDGE_SECONDS", 0.0)
    # Killing a process loses nothing that it wrote: waiting for the disk would only take time here.
    monkeypatch.setattr("os.fsync", lambda _fd: None)
    monkeypatch.setattr("os.fdatasync", lambda _fd: None)
    return Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True))


def source_of(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "source", SIZE, {0: noise(9 * CHUNK, 1), MIB: text(6 * CHUNK, 2), SIZE - 5: b"tail"})


def journaled(bench: Workbench) -> set[bytes]:
    """Ids of all chunks in journals."""
    found: set[bytes] = set()
    for info in bench.store.list("sessions/"):
        if "/journal/" in info.key:
            ids = ids_of(read_journal(bench.repository, info.key, PackTable()).rows)
            found.update(ids[i : i + 32] for i in range(0, len(ids), 32))
    return found


def packs(bench: Workbench) -> set[str]:
    return {info.key for info in bench.store.list("packs/")}


def chunks_in(bench: Workbench, keys: set[str]) -> set[bytes]:
    found: set[bytes] = set()
    for key in keys:
        found.update(read_table(bench.store.get(key), sealing=bench.repository.sealing, name=key).ids)
    return found


def check(bench: Workbench, source: Path, sequence: int | None = None) -> None:
    bench.verified(sequence)
    bench.check_pack_lists(sequence)
    out = bench.root / "check"
    [done] = bench.restore(sequence, out=out)
    assert same(source, Path(done.target))
    shutil.rmtree(out)


def operations(bench: Workbench, source: Path) -> int:
    """How many store operations an export has, on a copy of everything."""
    folder = bench.root / "rehearsal"
    shutil.copytree(bench.root / "store", folder / "store")
    if bench.state.exists():
        shutil.copytree(bench.state, folder / "state")
    counting = FaultyStore(DirectoryStore(folder / "store"))
    copy = bench.through(counting)
    copy.state = folder / "state"
    copy.export(source)
    shutil.rmtree(folder)
    return len(counting.history)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("incremental", [False, True], ids=["full", "incremental"])
def test_an_export_killed_at_any_store_operation_goes_on(
    bench: Workbench, tmp_path: Path, after: bool, incremental: bool
) -> None:
    source = source_of(tmp_path)
    if incremental:
        bench.export(source)
        poke(source, 0, noise(5 * CHUNK, 5))
        punch(source, MIB, 2 * CHUNK)
        poke(source, MIB + 9 * CHUNK, noise(3 * CHUNK, 6))
    kept = tmp_path / "kept"
    shutil.copytree(bench.root / "store", kept / "store")
    if incremental:
        shutil.copytree(bench.state, kept / "state")
    last = operations(bench, source)
    assert last > 12
    kills = 0
    for nth in range(1, last + 1):
        shutil.rmtree(bench.root / "store")
        shutil.rmtree(bench.state, ignore_errors=True)
        shutil.copytree(kept / "store", bench.root / "store")
        if incremental:
            shutil.copytree(kept / "state", bench.state)
        bench.store = DirectoryStore(bench.root / "store")
        now = bench.through(bench.store)
        rule = Rule(Kill(after=after), nth=nth)
        kills += in_child(lambda b=now, r=rule: b.through(FaultyStore(b.store, [r])).export(source))  # type: ignore[misc]
        before, known = packs(now), journaled(now)
        started = time.monotonic()
        result = now.export(source)
        assert time.monotonic() - started < 5
        again = chunks_in(now, packs(now) - before) & known
        assert not again, f"{len(again)} journaled chunks were sent again after a kill at operation {nth}"
        assert result.manifest is not None
        check(now, source)
        if nth % 5 == 0 or nth == last:
            assert now.export(source).disks[0].counters.sent == 0
    assert kills >= last - 5, "what comes after a listing that is empty is no boundary"


def test_a_disk_that_changed_since_the_kill_is_read_again(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    rule = Rule(Kill(), verb="put", key=lambda key: key.startswith("manifests/"))
    assert in_child(lambda: bench.through(FaultyStore(bench.store, [rule])).export(source))
    before = packs(bench)
    poke(source, 3 * CHUNK + 7, b"changed since")
    result = bench.export(source)
    assert result.resumed
    assert result.disks[0].counters.read >= 15 * CHUNK
    assert len(chunks_in(bench, packs(bench) - before)) == 1, "only the chunk that changed"
    check(bench, source)


def test_an_identical_snapshot_is_not_even_read_again(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    rule = Rule(Kill(), verb="put", key=lambda key: key.startswith("manifests/"))
    assert in_child(lambda: bench.through(FaultyStore(bench.store, [rule])).export(source))
    result = bench.export(source)
    assert result.disks[0].counters.sent == 0
    assert result.disks[0].counters.read <= CHUNK
    check(bench, source)


def test_journals_of_another_chunk_size_are_not_mixed_up(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    rule = Rule(Kill(), verb="put", key=lambda key: key.startswith("manifests/"))
    assert in_child(lambda: bench.through(FaultyStore(bench.store, [rule])).export(source))
    bench.export(source, chunk_size=256 << 10)
    check(bench, source)


def test_many_kills_in_a_row_end_right(bench: Workbench, tmp_path: Path) -> None:
    source = source_of(tmp_path)
    for _ in range(6):
        rule = Rule(Kill(after=True), verb="put", key=lambda key: "/journal/" in key)
        in_child(lambda r=rule: bench.through(FaultyStore(bench.store, [r])).export(source))  # type: ignore[misc]
    before, known = packs(bench), journaled(bench)
    assert len(known) >= 15
    bench.export(source)
    assert not chunks_in(bench, packs(bench) - before) & known
    check(bench, source)


RESTORING = [
    (Stage, "save"),
    (Stage, "lock"),
    (Done, "save"),
    (RawWriter, "write"),
    (RawWriter, "discard"),
    (RawWriter, "flush"),
    (RawWriter, "read_into"),
    (IndexFile, "store"),
    (IndexFile, "apply"),
    (IndexFile, "commit"),
    (IndexFile, "invalidate"),
    (local, "open_writer"),
]


@pytest.mark.parametrize("start", ["nothing", "older", "newer", "foreign"])
def test_an_import_killed_at_any_step_goes_on(bench: Workbench, tmp_path: Path, start: str) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    first = tmp_path / "first"
    shutil.copy(source, first)
    poke(source, 0, noise(3 * CHUNK, 5))
    punch(source, MIB, 2 * CHUNK)
    bench.export(source)
    wanted, sequence = (first, 1) if start == "newer" else (source, 2)
    for nth in range(1, 200):
        shutil.rmtree(bench.out, ignore_errors=True)
        if start != "nothing":
            bench.restore(2 if start == "newer" else 1)
        if start == "foreign":
            poke(bench.restored(), 5 * CHUNK, b"foreign")

        def action(number: int = nth) -> None:
            patch = pytest.MonkeyPatch()
            kill_at(patch, RESTORING, number)
            bench.restore(sequence, parallel=1)

        killed = in_child(action)
        bench.restore(sequence, parallel=1)
        assert same(wanted, bench.restored()), nth
        assert bench.restore(sequence)[0].mode == "unchanged"
        if not killed:
            break
    assert nth > 10


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_an_import_killed_at_any_store_operation_goes_on(bench: Workbench, tmp_path: Path, after: bool) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    counting = FaultyStore(bench.store)
    bench.through(counting).restore()
    kills = 0
    for nth in range(1, len(counting.history) + 1):
        shutil.rmtree(bench.out, ignore_errors=True)
        rule = Rule(Kill(after=after), nth=nth)
        kills += in_child(lambda r=rule: bench.through(FaultyStore(bench.store, [r])).restore())  # type: ignore[misc]
        bench.restore()
        assert same(source, bench.restored()), nth
    assert kills >= len(counting.history) - 3


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_refresh_killed_at_any_store_operation_goes_on(bench: Workbench, tmp_path: Path, after: bool) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    bench.restore()
    poke(source, 0, noise(5 * CHUNK, 5))
    punch(source, MIB, 2 * CHUNK)
    bench.export(source)
    counting = FaultyStore(bench.store)
    assert bench.through(counting).restore()[0].mode == "refresh"
    kills = 0
    for nth in range(1, len(counting.history) + 1):
        shutil.rmtree(bench.out)
        bench.restore(1)
        rule = Rule(Kill(after=after), nth=nth)
        kills += in_child(lambda r=rule: bench.through(FaultyStore(bench.store, [r])).restore())  # type: ignore[misc]
        bench.restore()
        assert same(source, bench.restored()), nth
        assert bench.restore()[0].mode == "unchanged"
    assert kills >= len(counting.history) - 4


@pytest.mark.slow
def test_exports_and_imports_killed_at_twenty_random_moments_end_right(bench: Workbench, tmp_path: Path) -> None:
    size = 64 * MIB + 5
    parts = {i * 8 * MIB: noise(3 * MIB, i) + text(3 * MIB, i) for i in range(8)}
    source = make_disk(tmp_path / "source", size, parts)
    chance = random.Random(3)

    def spent(action: object) -> float:
        started = time.monotonic()
        action()  # type: ignore[operator]
        return time.monotonic() - started

    longest = spent(lambda: in_child(lambda: bench.export(source, machine="rehearsal")))
    restore_longest = spent(lambda: in_child(lambda: bench.restore(machine="rehearsal", out=tmp_path / "rehearsal")))
    kills = 0
    for turn in range(20):
        shutil.rmtree(bench.root / "store")
        shutil.rmtree(bench.state, ignore_errors=True)
        shutil.rmtree(bench.out, ignore_errors=True)
        fresh = Workbench(bench.root, DirectoryStore(bench.root / "store", create=True))
        kills += in_child(lambda b=fresh: b.export(source), kill_after=chance.uniform(0, longest))  # type: ignore[misc]
        before, known = packs(fresh), journaled(fresh)
        fresh.export(source)
        assert not chunks_in(fresh, packs(fresh) - before) & known, turn
        if turn % 5 == 0:
            fresh.verified()
        kills += in_child(lambda b=fresh: b.restore(), kill_after=chance.uniform(0, restore_longest))  # type: ignore[misc]
        fresh.restore()
        assert same(source, fresh.restored()), turn
    assert kills > 20


def test_a_killed_reader_of_the_source_leaves_nothing_behind(bench: Workbench, tmp_path: Path) -> None:
    """Killed while it reads: work folders of dead processes do not pile up for ever."""
    source = source_of(tmp_path)

    def action() -> None:
        patch = pytest.MonkeyPatch()
        kill_at(patch, [(RawExporter, "read_into")], 2)
        bench.export(source)

    for _ in range(3):
        assert in_child(action)
    bench.export(source)
    work = bench.state / bench.repository.document.id / "work"
    assert list(work.iterdir()) == []
