"""Collection in a bucket that keeps versions: all versions of what is doomed go, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from simulators.versioned_store import Crash, VersionedStore
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, poke, same

from collect.support import DAY, HOUR
from manifests.names import manifest_key, session_prefix
from pipeline.catalogue import forget
from pipeline.collect.collector import Collection
from pipeline.collect.history import Erased, erase, histories, histories_of
from pipeline.collect.plan import Plan
from pipeline.errors import CorruptObject
from pipeline.mend.repair import repair
from pipeline.mend.scrub import PLACES
from pipeline.store.base import Version
from pipeline.transfer.pack_lists import packs_of


@dataclass
class Place:
    """Three full points a week apart, of which the first two are forgotten, two days ago."""

    store: VersionedStore
    bench: Workbench
    source: Path

    def collect(self, *, apply: bool = True, **options: Any) -> Plan:
        return Collection(self.bench.repository, apply=apply, **options).run()

    def packs(self, sequence: int) -> set[str]:
        disk = self.bench.point(sequence).manifest.disks[0]
        return {f"packs/{p.hex()[:2]}/{p.hex()}" for p in packs_of(self.bench.repository, disk)}

    def restored(self) -> None:
        self.bench.verified()
        self.bench.restore()
        assert same(self.source, self.bench.restored())

    def size(self, prefix: str) -> int:
        return sum(len(v.data or b"") for key in self.store.kept(prefix) for v in self.store.objects[key])


def place(root: Path, *, lock: timedelta = timedelta()) -> Place:
    store = VersionedStore(lock=lock)
    made = Place(store, Workbench(root, store), make_disk(root / "source", MIB, {0: noise(9 * CHUNK, 1)}))
    for turn in range(3):
        poke(made.source, turn * CHUNK, os.urandom(CHUNK))
        made.bench.export(made.source, full=True)
        store.now += 7 * DAY
    return made


@pytest.fixture
def old(tmp_path: Path) -> Place:
    made = place(tmp_path)
    doom(made)
    return made


def doom(made: Place) -> None:
    for sequence in (1, 2):
        forget(made.bench.repository, made.bench.point(sequence), reason="old")
    made.store.now += 2 * DAY


def markers(store: VersionedStore, prefix: str = "") -> list[str]:
    return [v.key for v in store.walk(prefix) if v.marker]


def test_all_versions_go_and_no_marker_stays(old: Place) -> None:
    kept = old.packs(3)
    before = old.size("packs/")
    plan = old.collect(apply=False)
    assert old.size("packs/") == before
    done = old.collect()
    assert old.store.kept("packs/") == kept
    assert old.store.kept("manifests/") == {manifest_key("vm", 3)}
    assert markers(old.store) == []
    assert done.doomed == plan.doomed > 18 * CHUNK
    assert done.erased is not None
    assert done.freed == done.erased.bytes >= done.doomed
    old.restored()


def test_what_earlier_collections_only_hid_goes_after_the_grace(old: Place) -> None:
    hid = old.collect(keep_versions=True)
    assert hid.versioned
    assert hid.freed == 0
    assert len(old.store.kept("packs/")) == 3
    assert len(markers(old.store, "packs/")) == 2
    old.store.now += 23 * HOUR
    old.collect()
    assert len(old.store.kept("packs/")) == 3, "hidden a little while ago: somebody may have hidden it by mistake"
    old.store.now += 2 * HOUR
    plan = old.collect(apply=False)
    assert plan.hidden is not None
    assert plan.hidden.bytes > 18 * CHUNK
    old.collect()
    assert old.store.kept("packs/") == old.packs(3)
    assert old.store.kept("manifests/") == {manifest_key("vm", 3)}
    assert not [key for key in markers(old.store) if not key.startswith("gc/")]
    old.restored()


def test_versions_of_what_a_point_needs_stay_whoever_overwrote_it(old: Place) -> None:
    [pack] = old.packs(3)
    good = bytes(old.store.get(pack))
    old.store.put(pack, b"overwritten by a thief")
    old.store.now += 30 * DAY
    old.collect()
    assert [old.store.get_version(v) for v in old.store.list_versions(pack)] == [b"overwritten by a thief", good]
    old.bench.restore()
    assert same(old.source, old.bench.restored())


def test_overwritten_packs_that_nothing_needs_go_with_all_their_versions(old: Place) -> None:
    pack = min(old.store.kept("packs/") - old.packs(3))
    old.store.put(pack, b"overwritten by a thief")
    old.store.now += 2 * DAY
    old.collect()
    assert pack not in old.store.kept("packs/")


def test_a_needed_pack_that_was_deleted_stops_it_and_keeps_its_versions(old: Place) -> None:
    [pack] = old.packs(3)
    old.store.delete_many([pack])
    old.store.now += 30 * DAY
    before = old.store.kept("")
    with pytest.raises(CorruptObject, match="older versions are still there") as stopped:
        old.collect()
    assert pack in stopped.value.message
    assert "failback repair" in stopped.value.remedy
    assert old.store.kept("") - {"gc/clock"} == before - {"gc/clock"}


def test_a_deleted_newest_manifest_is_not_taken_for_one_that_never_was(old: Place) -> None:
    """A plain listing does not show it: there is no gap behind the highest number. No session tells of it any more."""
    old.collect()
    old.store.delete_many([manifest_key("vm", 3)])
    old.store.now += 30 * DAY
    packs = old.store.kept("packs/")
    with pytest.raises(CorruptObject, match="was deleted, and no tombstone says"):
        old.collect()
    assert old.store.kept("packs/") == packs


def test_a_manifest_that_was_overwritten_with_another_valid_one_stops_it(tmp_path: Path) -> None:
    """Or all that only the first one needs would be taken for garbage."""
    made = place(tmp_path)
    key = manifest_key("vm", 3)
    first = bytes(made.store.get(key))
    other = made.bench.point(2).manifest.model_copy(update={"sequence": 3})
    forged = other.encode(made.bench.repository.sealing)
    made.store.put(key, forged)
    made.store.now += 30 * DAY
    packs = made.store.kept("packs/")
    with pytest.raises(CorruptObject, match="was overwritten with something else"):
        made.collect()
    assert made.store.kept("packs/") == packs
    made.store.put(key, first)
    made.collect()
    made.store.put(key, forged)
    forget(made.bench.repository, made.bench.point(3), reason="given up")
    made.store.now += 30 * DAY
    made.collect()
    assert key in made.store.kept("manifests/"), "the highest number stays taken"


def test_locked_versions_are_skipped_and_reported_until_their_lock_ends(tmp_path: Path) -> None:
    made = place(tmp_path, lock=60 * DAY)
    doom(made)
    before = made.store.kept("packs/")
    made.store.deleted.clear()
    plan = made.collect()
    erased = plan.erased
    assert erased is not None
    assert made.store.kept("packs/") == before
    assert made.store.deleted == []
    assert erased.bytes == plan.freed == 0
    assert erased.locked > 4
    assert erased.locked_bytes >= plan.doomed > 0
    assert isinstance(erased.first, datetime)
    assert isinstance(erased.last, datetime)
    assert made.store.now < erased.first <= erased.last
    assert plan.as_json()["erased"]["first"] == erased.first.isoformat()
    assert not markers(made.store, "packs/"), "what is locked is not hidden either"
    made.store.now += 90 * DAY
    made.collect()
    assert made.store.kept("packs/") == made.packs(3)
    made.restored()


def test_heartbeats_and_notes_leave_no_versions_behind(old: Place) -> None:
    for _ in range(3):
        old.store.put(f"{session_prefix('vm', '0000000009-aa')}heartbeat", b"x")
        old.collect()
        old.store.now += DAY / 2
    old.store.now += 2 * DAY
    old.collect()
    for prefix in ("gc/", "sessions/", "verified/"):
        for key in old.store.kept(prefix):
            ages = [old.store.now - v.modified for v in old.store.list_versions(key)][1:]
            assert not [age for age in ages if age > 4 * DAY], key
    assert len(old.store.list_versions("gc/clock")) == 2, "the one that replaced it is younger than the grace"


def test_tombstones_and_keys_keep_every_version(old: Place) -> None:
    for prefix in ("keys/", *(p for p in PLACES if p == "tombstones/")):
        for key in sorted(old.store.kept(prefix)):
            old.store.put(key, b"overwritten")
            old.store.put(key, old.store.get_version(old.store.list_versions(key)[-1]))
    old.store.now += 30 * DAY
    before = {key: len(old.store.objects[key]) for p in ("keys/", "tombstones/") for key in old.store.kept(p)}
    old.collect()
    assert {key: len(old.store.objects[key]) for p in ("keys/", "tombstones/") for key in old.store.kept(p)} == before


def test_killed_at_any_delete_the_same_command_goes_on(tmp_path: Path) -> None:
    for deletes in range(0, 40, 3):
        root = tmp_path / str(deletes)
        root.mkdir()
        made = place(root)
        doom(made)
        made.collect(keep_versions=True)
        made.store.now += 2 * DAY
        made.store.last_deletes = deletes
        listed = {info.key for info in made.store.list("")}
        try:
            made.collect()
        except Crash:
            back = {info.key for info in made.store.list("")} - listed
            assert not {key for key in back if not key.startswith("gc/")}, "nothing hidden comes back into view"
        made.store.last_deletes = -1
        made.collect()
        assert made.store.kept("packs/") == made.packs(3)
        assert made.store.kept("manifests/") == {manifest_key("vm", 3)}
        made.restored()


def test_a_walk_for_a_few_keys_among_many_does_not_read_all_versions() -> None:
    store = VersionedStore()
    for number in range(5000):
        store.put(f"packs/{number:05}", b"x")
    read = 0

    class Counted(VersionedStore):
        def walk(self, prefix: str, *, after: str = "") -> Iterator[Version]:
            nonlocal read
            for version in store.walk(prefix, after=after):
                read += 1
                yield version

    wanted = ["packs/00003", "packs/00004", "packs/04990", "packs/absent"]
    found = [history.key for history in histories_of(Counted(), "packs/", wanted)]
    assert found == wanted[:3]
    assert read < 1100


def test_markers_outlive_the_locked_versions_that_they_hide() -> None:
    store = VersionedStore(lock=DAY)
    store.put("k", b"one")
    store.delete_many(["k"])
    tally = Erased()
    erase(store, (history.versions for history in histories(store, "")), tally)
    assert store.head("k") is None
    assert [v.marker for v in store.list_versions("k")] == [True, False]
    assert (tally.count, tally.locked) == (0, 1)


def test_no_void_record_is_put_over_a_manifest_that_somebody_deleted(old: Place) -> None:
    """Its writer was killed between commit and end: of its session alone nobody could tell that it committed."""
    key = manifest_key("vm", 3)
    for ended in [k for k in old.store.kept("sessions/vm/0000000003") if k.endswith("/ended")]:
        del old.store.objects[ended]
    old.store.delete_many([key])
    old.store.now += 2 * DAY
    with pytest.raises(CorruptObject, match="was deleted, and no tombstone says"):
        old.collect()
    assert [version.marker for version in old.store.list_versions(key)] == [True, False]
    assert [damage.key for damage in repair(old.bench.repository).from_versions] == [key]
    old.collect()
    old.restored()
