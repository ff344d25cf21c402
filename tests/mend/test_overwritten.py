"""A point that a thief of its machine's keys signs over another: who notices it, and what brings the first back."""

from __future__ import annotations

from pathlib import Path

import pytest
from collect.support import DAY
from simulators.versioned_store import VersionedStore
from transfer.support import CHUNK, Workbench, noise, poke, same

from manifests.envelope import Kind
from manifests.manifest import encode_record
from manifests.names import PointName, manifest_key
from mend.bench import by_listing, filled
from pipeline.catalogue import forget_lost, load, now
from pipeline.collect.collector import Collection
from pipeline.collect.record import record_verification
from pipeline.errors import CorruptObject, Forged
from pipeline.keys.known import Seen
from pipeline.mend.repair import repair
from pipeline.repository import Repository
from pipeline.store.base import Store
from pipeline.store.memory import MemoryStore
from pipeline.verify.lineage import check_lineage


def make(root: Path, store: Store) -> tuple[Workbench, Path]:
    """Two points: the second one builds on the first."""
    bench = Workbench(root, store)
    disk = filled(bench)
    poke(disk, 3 * CHUNK, noise(CHUNK, "changed"))
    bench.export(disk)
    return bench, disk


@pytest.fixture
def plain(tmp_path: Path) -> Workbench:
    return make(tmp_path, MemoryStore())[0]


@pytest.fixture
def versioned(tmp_path: Path) -> tuple[Workbench, Path]:
    return make(tmp_path, VersionedStore())


def host(bench: Workbench, name: str) -> Repository:
    """The repository as a host opens it that has a memory."""
    repository = Repository(bench.store, bench.repository.document, bench.repository.sealing)
    repository.seen = Seen(bench.root / name, bench.repository.document.id)
    return repository


def forge(bench: Workbench, sequence: int = 1) -> None:
    """Sign another point over one, as whoever has the keys of its machine can."""
    manifest = bench.point(sequence).manifest.model_copy(update={"tool": "a thief's"})
    bench.store.put(manifest_key("vm", sequence), manifest.encode(bench.repository.sealing))


def test_a_host_that_has_seen_the_point_refuses_another_one(plain: Workbench) -> None:
    assert load(host(plain, "a"), "vm", 1)
    forge(plain)
    assert load(host(plain, "b"), "vm", 1), "a fresh host cannot tell"
    with pytest.raises(Forged, match="it was overwritten") as refused:
        load(host(plain, "a"), "vm", 1)
    assert "failback forget vm@1 --missing" in refused.value.remedy
    assert load(host(plain, "a"), "vm", 2)
    forget_lost(host(plain, "a"), PointName("vm", 1), reason="given up")


def test_the_host_that_exported_it_knows_it_at_once(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    bench.repository.seen = Seen(tmp_path / "seen", bench.repository.document.id)
    disk = filled(bench)
    bench.repository.seen = None
    forge(bench)
    bench.repository.seen = Seen(tmp_path / "seen", bench.repository.document.id)
    with pytest.raises(CorruptObject, match="overwritten"):
        bench.export(disk)


def test_a_memory_that_was_cut_short_is_no_hindrance(plain: Workbench) -> None:
    load(host(plain, "a"), "vm", 1)
    [path] = (plain.root / "a").rglob("manifests/vm")
    path.write_text(path.read_text() + "2 abc")
    assert load(host(plain, "a"), "vm", 2)


@pytest.mark.parametrize("sequence", [1, 2])
def test_points_that_were_built_on_it_tell(plain: Workbench, sequence: int) -> None:
    assert check_lineage(host(plain, "b"), plain.point(sequence)) == []
    forge(plain)
    [text] = check_lineage(host(plain, "fresh"), plain.point(sequence))
    assert "vm@1 is not the manifest that vm@2 was built on" in text


def test_a_host_that_saw_the_parent_tells_of_it_when_the_child_is_verified(plain: Workbench) -> None:
    assert check_lineage(host(plain, "a"), plain.point(2)) == []
    forge(plain)
    [text] = check_lineage(host(plain, "a"), plain.point(2))
    assert "vm@1" in text
    assert "when this host last looked" in text


def test_a_collection_stops_before_it_takes_what_only_the_first_one_needs(plain: Workbench) -> None:
    forge(plain)
    with pytest.raises(CorruptObject, match="vm@1 is not the manifest that vm@2 was built on"):
        Collection(plain.repository, apply=True).run()


def test_a_void_record_over_a_point_is_noticed_as_another_point_is(plain: Workbench) -> None:
    """Where it is not encrypted whoever may write manifests can write it; else a janitor."""
    assert load(host(plain, "a"), "vm", 1)
    key = manifest_key("vm", 1)
    void = {"reason": "a thief's", "time": now(), "by": "nobody"}
    plain.store.put(key, encode_record(Kind.VOID, void, sealing=plain.repository.sealing, key=key))
    assert load(host(plain, "b"), "vm", 1) is None, "a fresh host cannot tell"
    with pytest.raises(Forged, match="it was overwritten"):
        load(host(plain, "a"), "vm", 1)
    [text] = check_lineage(host(plain, "fresh"), plain.point(2))
    assert "vm@1 is not the manifest that vm@2 was built on" in text
    with pytest.raises(CorruptObject, match="vm@1 is not the manifest that vm@2 was built on"):
        Collection(plain.repository, apply=True).run()
    forget_lost(host(plain, "b"), PointName("vm", 1), reason="given up")
    Collection(plain.repository, apply=True).run()


def test_a_note_that_the_newest_point_is_good_tells(plain: Workbench) -> None:
    record_verification(plain.repository, plain.point(2), "read")
    assert check_lineage(host(plain, "b"), plain.point(2)) == []
    forge(plain, 2)
    [text] = check_lineage(host(plain, "b"), plain.point(2))
    assert "noted as good (read)" in text


def test_versions_tell_and_a_repair_puts_the_first_one_back(versioned: tuple[Workbench, Path]) -> None:
    bench, disk = versioned
    key = manifest_key("vm", 2)
    first = bytes(bench.store.get(key))
    forge(bench, 2)
    assert [text for text in check_lineage(host(bench, "b"), bench.point(2)) if "written there at first" in text]
    [damage] = by_listing(host(bench, "b")).open
    assert (damage.key, damage.problem, damage.kept) == (key, "overwritten", True)
    repaired = repair(host(bench, "b"))
    assert [d.key for d in repaired.from_versions] == [key]
    assert repaired.left.damages == []
    assert bytes(bench.store.get(key)) == first
    assert check_lineage(host(bench, "b"), bench.point(2)) == []
    bench.restore()
    assert same(disk, bench.restored())


def test_a_host_that_knows_the_first_one_reads_it_from_older_versions(versioned: tuple[Workbench, Path]) -> None:
    bench, _disk = versioned
    first = load(host(bench, "a"), "vm", 2)
    forge(bench, 2)
    assert load(host(bench, "a"), "vm", 2) == first


def test_a_deleted_newest_manifest_comes_back(versioned: tuple[Workbench, Path]) -> None:
    bench, disk = versioned
    key = manifest_key("vm", 2)
    bench.store.delete_many([key])
    [damage] = by_listing(host(bench, "b")).open
    assert (damage.key, damage.problem, damage.kept) == (key, "missing", True)
    assert repair(host(bench, "b")).left.damages == []
    bench.restore(2)
    assert same(disk, bench.restored())


def test_two_points_under_one_number_are_for_a_person_to_judge(versioned: tuple[Workbench, Path]) -> None:
    """A thief hid the newest; the next export took its number, which to it was free."""
    bench, disk = versioned
    store = bench.store
    assert isinstance(store, VersionedStore)
    key = manifest_key("vm", 2)
    store.delete_many([key])
    poke(disk, 5 * CHUNK, noise(CHUNK, "later"))
    bench.elsewhere("other").export(disk)
    newest = bytes(store.get(key))
    [damage] = [d for d in by_listing(host(bench, "b")).open if d.key == key]
    assert (damage.problem, damage.kept) == ("rewritten", False)
    assert repair(host(bench, "b")).from_versions == []
    assert bytes(store.get(key)) == newest
    store.now += 30 * DAY
    with pytest.raises(CorruptObject, match="overwritten with something else"):
        Collection(host(bench, "b"), apply=True).run()
