"""What is damaged is mended: from a copy, from a surviving disk, from other points; and every point restores again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from transfer.killing import in_child, kill_at
from transfer.support import CHUNK, Workbench, noise, poke, same

from manifests.names import manifest_key, relocations_prefix
from mend.bench import by_listing, by_reading, cut, filled, flip, pack_at, positions_in, remove, swap
from pipeline.catalogue import forget
from pipeline.errors import WrongRepository
from pipeline.exporters.raw import RawExporter
from pipeline.keys.locks import KeyFile
from pipeline.mend.damage import damaged_ids
from pipeline.mend.relocate import SurvivingDisk
from pipeline.mend.repair import Repaired, repair
from pipeline.repository import Repository
from pipeline.store.base import Bytes, ObjectInfo
from pipeline.store.directory import DirectoryStore
from pipeline.store.layer import Layer
from pipeline.store.memory import MemoryStore
from pipeline.transfer.relocations import relocations_of
from pipeline.verify.listing import verify_listing
from pipeline.verify.reading import verify_reading


def mirror(bench: Workbench) -> Repository:
    """A copy of the bucket as it is now."""
    store = MemoryStore("memory://copy")
    for info in bench.store.list(""):
        store.put(info.key, bench.store.get(info.key))
    return Repository.open(store, lambda: [KeyFile(bench.root / "key")])


def from_disk(bench: Workbench, disk: Path, sequence: int | None = None) -> Repaired:
    exporter = RawExporter(str(disk))
    try:
        return repair(bench.repository, survivors=[SurvivingDisk(bench.disk(sequence), exporter)])
    finally:
        exporter.close()


def contents(bench: Workbench) -> dict[str, bytes]:
    return {info.key: bytes(bench.store.get(info.key)) for info in bench.store.list("")}


def test_a_copy_gives_back_every_object_as_it_was(bench: Workbench) -> None:
    disk = filled(bench)
    poke(disk, 15 * CHUNK, b"changed")
    bench.export(disk)
    before, copy = contents(bench), mirror(bench)
    packs = [i.key for i in bench.store.list("packs/")]
    pages = [i.key for i in bench.store.list("pages/")]
    flip(bench.store, packs[0], 700)
    remove(bench.store, packs[1])
    cut(bench.store, packs[2], 200)
    for number, page in enumerate(pages):
        (remove if number % 2 else lambda s, k: swap(s, k, packs[1 - 1]))(bench.store, page)
    remove(bench.store, manifest_key("vm", 1))
    by_reading(bench.repository, bench.state)
    repaired = repair(bench.repository, copy=copy)
    assert repaired.left.damages == []
    after = contents(bench)
    assert {k: v for k, v in after.items() if not k.startswith("scrub/runs/")} == before
    bench.verified(1)
    bench.verified(2)


def test_what_is_damaged_in_the_copy_too_is_not_put_back(bench: Workbench) -> None:
    filled(bench)
    copy = mirror(bench)
    key = pack_at(bench, 20)
    flip(copy.store, key, 9000)
    remove(bench.store, key)
    repaired = repair(bench.repository, copy=copy)
    assert repaired.put_back == []
    assert [d.key for d in repaired.left.open] == [key]
    assert bench.store.head(key) is None


def test_another_repository_is_no_copy(bench: Workbench) -> None:
    filled(bench)
    remove(bench.store, pack_at(bench, 20))
    before = contents(bench)
    with pytest.raises(WrongRepository, match="objects of one are of no use to the other"):
        repair(bench.repository, copy=Repository.init(MemoryStore()))
    assert contents(bench) == before


@pytest.mark.parametrize("hurt", ["missing", "cut", "flipped", "swapped", "salt"])
def test_a_surviving_disk_brings_back_what_a_pack_held_for_all_points(bench: Workbench, hurt: str) -> None:
    disk = filled(bench)
    first = disk.read_bytes()
    poke(disk, 15 * CHUNK, b"changed")
    bench.export(disk)
    key = pack_at(bench, 20, 1)
    match hurt:
        case "missing":
            remove(bench.store, key)
        case "cut":
            cut(bench.store, key, 1 << 20)
        case "flipped":
            flip(bench.store, key, 2 << 20)
        case "swapped":
            swap(bench.store, key, next(i.key for i in bench.store.list("packs/") if i.key != key))
        case "salt":
            flip(bench.store, key, 1)
    by_reading(bench.repository, bench.state)
    disk.write_bytes(first)
    repaired = from_disk(bench, disk, 1)
    assert repaired.left.open == []
    assert repaired.left.mended == {key}
    for sequence in (1, 2):
        bench.restore(sequence)
        out = bench.restored()
        poke(disk, 15 * CHUNK, b"changed") if sequence == 2 else None
        assert same(out, disk)
        out.unlink()
        assert verify_reading(bench.repository, bench.point(sequence)).ok
        assert verify_listing(bench.repository, bench.point(sequence)).ok


def test_only_what_the_disk_still_holds_is_relocated_and_the_rest_is_named(bench: Workbench) -> None:
    disk = filled(bench)
    key = pack_at(bench, 20)
    lost = positions_in(bench, key)
    remove(bench.store, key)
    poke(disk, 20 * CHUNK, b"changed since")
    repaired = from_disk(bench, disk)
    assert repaired.relocations.from_disks == len(lost) - 1
    [harm] = repaired.left.harms
    assert harm.ranges == [(20 * CHUNK, CHUNK)]
    assert [d.key for d in repaired.left.open] == [key]
    again = from_disk(bench, disk)
    assert again.relocations.records == []


def test_the_next_export_of_a_live_source_sends_it_again_and_older_points_get_it_too(bench: Workbench) -> None:
    disk = filled(bench)
    key = pack_at(bench, 20)
    lost = positions_in(bench, key)
    flip(bench.store, key, 100_000)
    by_reading(bench.repository, bench.state)
    result = bench.export(disk)
    assert result.disks[0].counters.resent >= len(lost) * CHUNK
    assert positions_in(bench, key, 2) == []
    bench.check_pack_lists(2)
    bench.verified(2)
    repaired = repair(bench.repository)
    assert repaired.relocations.from_points + repaired.relocations.from_itself == len(lost)
    assert repaired.relocations.from_points == 1
    assert repaired.left.open == []
    assert bench.restore(1)
    assert same(bench.restored(), disk)


def test_a_final_export_sends_it_again_too(bench: Workbench) -> None:
    disk = filled(bench)
    key = pack_at(bench, 20)
    remove(bench.store, key)
    by_listing(bench.repository)
    bench.export(disk, final=True)
    bench.verified(2)


def test_a_full_export_shares_nothing_with_a_damaged_pack(bench: Workbench) -> None:
    disk = filled(bench)
    key = pack_at(bench, 20)
    remove(bench.store, key)
    by_listing(bench.repository)
    bench.export(disk, machine="other", bases=(bench.point(1),))
    assert verify_reading(bench.repository, bench.point(1, "other")).ok


def test_a_relocated_chunk_that_is_lost_again_is_repaired_again(bench: Workbench) -> None:
    disk = filled(bench)
    key = pack_at(bench, 20)
    remove(bench.store, key)
    before = {i.key for i in bench.store.list("packs/")}
    from_disk(bench, disk)
    [new] = {i.key for i in bench.store.list("packs/")} - before
    flip(bench.store, new, 50_000)
    _report, findings = by_reading(bench.repository, bench.state)
    assert {d.key for d in findings.open} >= {key}
    assert from_disk(bench, disk).left.open == []
    bench.restore()
    assert same(bench.restored(), disk)


def test_two_repairs_at_once_do_no_harm(bench: Workbench) -> None:
    disk = filled(bench)
    key = pack_at(bench, 20)
    remove(bench.store, key)
    meet = threading.Barrier(2, timeout=30)

    class Together(Layer):
        """Both list the records before either writes one."""

        def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
            found = list(super().list(prefix, after=after))
            if prefix.startswith("relocations/") and not met.is_set() and written.is_set():
                meet.wait()
                met.set()
            return iter(found)

        def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
            super().put(key, data, create=create)
            if key.startswith("packs/"):
                written.set()

    met, written = threading.Event(), threading.Event()
    problems: list[Exception] = []

    def run() -> None:
        try:
            from_disk(bench.through(Together(bench.store)), disk)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            problems.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    records = [i.key for i in bench.store.list(relocations_prefix(bytes.fromhex(key[-64:])))]
    assert len(records) == 2
    assert by_listing(bench.repository).open == []
    bench.restore()
    assert same(bench.restored(), disk)


def test_a_repair_that_is_killed_at_any_write_is_finished_by_the_same_call(bench: Workbench) -> None:
    class Killed(BaseException):
        pass

    class Dying(Layer):
        def __init__(self, inner: MemoryStore, writes: int) -> None:
            super().__init__(inner)
            self.left = writes

        def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
            if not self.left:
                raise Killed
            self.left -= 1
            super().put(key, data, create=create)

    disk = filled(bench, chunks=300)
    keys = sorted({pack_at(bench, p) for p in (20, 300)})
    for key in keys:
        remove(bench.store, key)
    for writes in range(6):
        with pytest.raises(Killed):
            from_disk(bench.through(Dying(bench.store, writes % 2)), disk)
    assert from_disk(bench, disk).left.open == []
    bench.restore()
    assert same(bench.restored(), disk)


def test_a_forged_or_damaged_relocation_gives_no_wrong_bytes(bench: Workbench) -> None:
    disk = filled(bench)
    key = pack_at(bench, 20)
    good = bytes(bench.store.get(key))
    remove(bench.store, key)
    from_disk(bench, disk)
    [record] = [i.key for i in bench.store.list("relocations/")]
    for at in (0, 45, 90, 130, 200, 1000):
        flip(bench.store, record, at)
        assert relocations_of(bench.repository, bytes.fromhex(key[-64:])) == {}
        flip(bench.store, record, at)
    assert relocations_of(bench.repository, bytes.fromhex(key[-64:]))
    bench.store.put(key, good)
    bench.verified()


def test_relocations_cost_a_whole_repository_nothing(bench: Workbench) -> None:
    filled(bench)

    class Watcher(Layer):
        listed: list[str] = []  # noqa: RUF012

        def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
            self.listed.append(prefix)
            return super().list(prefix, after=after)

    other = bench.through(Watcher(bench.store))
    other.restore()
    verify_reading(other.repository, other.point())
    assert not [p for p in Watcher.listed if p.startswith("relocations/")]


def test_damage_that_no_point_needs_any_more_is_no_longer_recorded(bench: Workbench) -> None:
    disk = filled(bench)
    key = pack_at(bench, 20)
    flip(bench.store, key, 9000)
    by_reading(bench.repository, bench.state)
    poke(disk, 0, noise(CHUNK, "x"))
    bench.export(disk, full=True)
    forget(bench.repository, bench.point(1), reason="test")
    assert damaged_ids(bench.repository)
    by_listing(bench.repository)
    assert not damaged_ids(bench.repository)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_kill_9_anywhere_in_a_repair_leaves_what_the_same_call_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr("os.fsync", lambda _fd: None)
    bench = Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True))
    disk = filled(bench)
    keys = {pack_at(bench, p) for p in (20, 190)}
    for nth in range(1, 20):
        for key in keys:
            remove(bench.store, key)
        for record in bench.store.list("relocations/"):
            remove(bench.store, record.key)

        def action(number: int = -nth if after else nth) -> None:
            kill_at(pytest.MonkeyPatch(), [(DirectoryStore, "put")], number)
            from_disk(bench, disk)

        killed = in_child(action)
        assert from_disk(bench, disk).left.open == []
        if not killed:
            break
    assert nth > 4
    bench.restore()
    assert same(bench.restored(), disk)
