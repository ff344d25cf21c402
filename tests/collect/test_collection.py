"""What no point needs goes; what a point or a writer needs stays; what looks wrong stops everything."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from transfer.killing import in_child
from transfer.support import CHUNK, poke, same

from collect.support import DAY, HOUR, Yard
from manifests.names import PointName, manifest_key
from pipeline.catalogue import forget, forget_lost
from pipeline.collect.collector import Collection
from pipeline.collect.order import COLLECTOR
from pipeline.collect.recall import recall
from pipeline.collect.record import hold, release
from pipeline.errors import (
    CatalogueError,
    CorruptObject,
    FailbackError,
    SessionFenced,
    StoreError,
    StoreFull,
    StoreUnavailable,
    UsageError,
)
from pipeline.keys.known import Seen
from pipeline.mend.needs import needs_of_all
from pipeline.progress import Counters
from pipeline.repository import Repository
from pipeline.store.base import Bytes, Store
from pipeline.store.directory import DirectoryStore
from pipeline.store.fault import Fail, FaultyStore, Kill, Rule, startswith
from pipeline.store.layer import Layer
from pipeline.transfer.session import Session


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def age(yard: Yard, points: int = 3) -> None:
    """Points that differ in one chunk each, a week apart."""
    for turn in range(points):
        poke(yard.source, turn * CHUNK, os.urandom(CHUNK))
        yard.bench.export(yard.source)
        yard.wait(7 * DAY)


def restored(yard: Yard) -> None:
    yard.bench.verified()
    yard.bench.check_pack_lists()
    yard.bench.restore()
    assert same(yard.source, yard.bench.restored())


def test_packs_of_forgotten_points_go_and_others_stay(yard: Yard) -> None:
    age(yard)
    yard.bench.export(yard.source, full=True)
    yard.wait(7 * DAY)
    before = set(yard.keys("packs/"))
    assert not yard.collect().doomed
    assert set(yard.keys("packs/")) == before
    for sequence in (1, 2, 3):
        forget(yard.repository, yard.bench.point(sequence), reason="old")
    yard.wait(2 * DAY)
    plan = yard.collect(apply=False)
    assert plan.doomed
    assert set(yard.keys("packs/")) == before
    freed = yard.collect()
    assert freed.doomed == plan.doomed
    assert set(yard.keys("packs/")) < before
    assert yard.keys("manifests/") == [manifest_key("vm", 4)]
    assert len(yard.keys("tombstones/")) == 3, "a gap needs its tombstone"
    restored(yard)
    assert not yard.collect().doomed
    assert yard.bench.export(yard.source).sequence == 5
    restored(yard)


def test_a_forgotten_newest_point_does_not_give_its_number_away(yard: Yard) -> None:
    age(yard)
    forget(yard.repository, yard.bench.point(3), reason="bad")
    yard.wait(2 * DAY)
    yard.collect()
    assert yard.bench.export(yard.source).sequence == 4
    yard.wait(2 * DAY)
    yard.collect()
    assert manifest_key("vm", 3) not in yard.keys("manifests/")
    restored(yard)


def test_what_is_younger_than_the_grace_stays(yard: Yard) -> None:
    yard.bench.export(yard.source)
    yard.store.put("packs/ab/" + "ab" * 32, b"left by a writer that died")
    yard.wait(23 * HOUR)
    assert not yard.collect().doomed
    yard.wait(2 * HOUR)
    assert yard.collect(apply=False, grace=26 * HOUR).doomed == 0
    assert yard.collect().doomed == len(b"left by a writer that died")
    with pytest.raises(UsageError):
        Collection(yard.repository, grace=timedelta(minutes=59))


def test_a_collection_at_any_moment_of_an_export_takes_nothing_it_needs(yard: Yard) -> None:
    """The parent is forgotten and weeks pass while the export goes on: its session keeps what it needs."""
    age(yard, 2)
    done: list[int] = []

    def meanwhile(_counters: Counters) -> None:
        if len(done) == 0:
            forget(yard.repository, yard.bench.point(2), reason="meanwhile")
            for _ in range(14):
                yard.wait(DAY)
                session = next(k for k in yard.keys("sessions/vm/0000000003") if k.endswith("/session"))
                yard.store.put(session.replace("/session", "/heartbeat"), b"")
                yard.collect()
        done.append(1)

    poke(yard.source, 9 * CHUNK, os.urandom(CHUNK))
    yard.bench.export(yard.source, watch=meanwhile)
    assert done
    restored(yard)


def test_a_writer_suspended_for_longer_than_the_grace_is_fenced_and_nothing_is_lost(yard: Yard) -> None:
    age(yard, 2)
    done: list[int] = []

    def suspended(_counters: Counters) -> None:
        if not done:
            done.append(1)
            yard.wait(3 * DAY)
            assert yard.collect().fenced == ["vm@3"]

    poke(yard.source, 9 * CHUNK, os.urandom(CHUNK))
    with pytest.raises(SessionFenced) as caught:
        yard.bench.export(yard.source, watch=suspended)
    assert caught.value.remedy
    yard.wait(3 * DAY)
    yard.collect()
    assert not yard.keys("sessions/vm/0000000003"), "nobody needs it any more"
    assert yard.bench.export(yard.source).sequence == 4
    yard.wait(3 * DAY)
    yard.collect()
    restored(yard)


@pytest.mark.parametrize("days", [0.5, 3])
@pytest.mark.parametrize("outcome", ["failed", ""])
def test_an_export_goes_on_where_a_dead_one_ended_unless_that_was_given_up(
    yard: Yard, days: float, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.transfer.send.JOURNAL_BYTES", 1)
    error = UsageError("stop") if outcome else StoreUnavailable("gone")
    faulty = FaultyStore(yard.store, [Rule(Fail(error), verb="put", key=startswith("manifests/"))])
    with pytest.raises(FailbackError):
        yard.bench.through(faulty).export(yard.source)
    yard.wait(days * DAY)
    plan = yard.collect()
    assert plan.fenced == (["vm@1"] if days > 1 else [])
    result = yard.bench.export(yard.source)
    assert result.resumed == (days < 1)
    assert result.sequence == (2 if days > 1 else 1)
    yard.wait(3 * DAY)
    yard.collect()
    restored(yard)


def test_a_store_without_conditional_put_is_never_fenced(tmp_path: Path) -> None:
    yard = Yard(tmp_path, conditional_put=False)
    faulty = FaultyStore(yard.store, [Rule(Fail(StoreUnavailable("gone")), verb="put", key=startswith("manifests/"))])
    with pytest.raises(StoreUnavailable):
        yard.bench.through(faulty).export(yard.source)
    packs = yard.keys("packs/")
    yard.wait(30 * DAY)
    plan = yard.collect()
    assert plan.unfenced == ["vm@1"]
    assert not plan.doomed
    assert yard.keys("packs/") == packs
    assert yard.bench.export(yard.source).sequence == 1
    yard.wait(2 * DAY)
    assert not yard.collect().unfenced
    restored(yard)


def test_two_collectors_at_once_and_one_that_was_suspended_are_harmless(yard: Yard) -> None:
    age(yard)
    forget(yard.repository, yard.bench.point(1), reason="old")
    yard.wait(2 * DAY)
    first = Collection(yard.repository, apply=True)
    delete = first._delete

    def suspended() -> None:
        yard.wait(30 * DAY)
        yard.collect()
        yard.bench.export(yard.source)
        forget(yard.repository, yard.bench.point(2), reason="old")
        yard.wait(2 * DAY)
        yard.collect()
        delete()

    first._delete = suspended  # type: ignore[method-assign]
    first.run()
    restored(yard)
    assert not yard.collect().doomed


def test_killed_anywhere_the_next_one_goes_on(tmp_path: Path) -> None:
    yard = Yard(tmp_path, DirectoryStore(tmp_path / "store", create=True))
    age(yard)
    yard.bench.export(yard.source, full=True)
    for sequence in (1, 2, 3):
        forget(yard.repository, yard.bench.point(sequence), reason="old")
    yard.wait(2 * DAY)
    want = yard.collect(apply=False).doomed
    assert want
    for nth in range(1, 5):
        rule = Rule(Kill(after=True), verb="delete_many", nth=nth)

        def die(rule: Rule = rule) -> None:
            Collection(yard.bench.through(FaultyStore(yard.store, [rule])).repository, apply=True).run()

        in_child(die)
        restored(yard)
    yard.collect()
    assert not yard.collect().doomed
    restored(yard)


def test_an_export_that_committed_and_was_deleted_by_hand_stops_the_collection(yard: Yard) -> None:
    age(yard)
    yard.store.inner.delete_many([manifest_key("vm", 3)])
    with pytest.raises(CorruptObject, match=manifest_key("vm", 3)) as caught:
        yard.collect()
    assert "--missing" in caught.value.remedy
    forget_lost(yard.repository, PointName("vm", 3), reason="deleted by hand")
    yard.collect()


def test_a_gap_stops_the_collection(yard: Yard) -> None:
    age(yard)
    yard.store.inner.delete_many([manifest_key("vm", 2)])
    with pytest.raises(CorruptObject, match=manifest_key("vm", 2)) as caught:
        yard.collect()
    assert "vm@2" in caught.value.remedy
    assert not yard.store.deleted
    with pytest.raises(UsageError):
        forget_lost(yard.repository, PointName("vm", 1), reason="a slip")
    forget_lost(yard.repository, PointName("vm", 2), reason="deleted by hand")
    yard.collect()
    restored(yard)


def test_a_tombstone_that_nobody_with_a_right_wrote_stops_the_collection(yard: Yard) -> None:
    yard.bench.export(yard.source)
    yard.bench.export(yard.source)
    yard.store.put("tombstones/vm/0000000001", b"rubbish")
    yard.wait(3 * DAY)
    before = yard.keys("")
    with pytest.raises(CorruptObject, match="tombstones/vm/0000000001") as caught:
        yard.collect()
    assert "nothing is collected" in caught.value.remedy
    assert not [key for key in yard.store.deleted if key in before]


def test_an_unreadable_manifest_stops_the_collection(yard: Yard) -> None:
    age(yard)
    yard.store.inner.put(manifest_key("vm", 2), b"noise")
    with pytest.raises(CorruptObject, match=manifest_key("vm", 2)):
        yard.collect()
    assert not yard.store.deleted


@pytest.mark.parametrize("prefix", ["packs/", "pages/"])
def test_an_object_that_a_rule_of_the_bucket_expired_stops_the_collection(yard: Yard, prefix: str) -> None:
    age(yard)
    key = yard.keys(prefix)[0]
    yard.store.inner.delete_many([key])
    with pytest.raises(CorruptObject) as caught:
        yard.collect()
    assert key in caught.value.message
    assert not yard.store.deleted


@pytest.mark.parametrize("prefix", ["packs/", "pages/"])
def test_a_listing_that_leaves_something_out_stops_the_collection(yard: Yard, prefix: str) -> None:
    age(yard)
    hidden = yard.keys(prefix)[0]
    whole = yard.store.inner.list

    def short(asked: str, *, after: str = "") -> object:
        return (info for info in whole(asked, after=after) if info.key != hidden)

    yard.store.inner.list = short  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreError, match=hidden) as caught:
        yard.collect()
    assert not isinstance(caught.value, CorruptObject)
    assert caught.value.remedy
    assert not yard.store.deleted


@pytest.mark.parametrize("prefix", ["tombstones/", "packs/", "pages/", "sessions/", "manifests/", "holds/"])
@pytest.mark.parametrize("fault", ["at once", "in the middle"])
def test_a_listing_that_fails_stops_the_collection(yard: Yard, prefix: str, fault: str) -> None:
    age(yard)
    forget(yard.repository, yard.bench.point(1), reason="old")
    hold(yard.repository, yard.bench.point(2), holder="test", reason="test")
    yard.wait(2 * DAY)
    whole = yard.store.inner.list

    def failing(asked: str, *, after: str = "") -> object:
        if asked != prefix:
            yield from whole(asked, after=after)
            return
        if fault == "in the middle":
            yield next(iter(whole(asked, after=after)))
        raise StoreUnavailable("down")

    yard.store.inner.list = failing  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreUnavailable):
        yard.collect()
    assert not yard.store.deleted


def test_a_listing_out_of_order_stops_the_collection(yard: Yard) -> None:
    age(yard)
    whole = yard.store.inner.list
    yard.store.inner.list = lambda p, after="": iter(list(whole(p, after=after))[::-1])  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreError, match="order"):
        yard.collect()


def test_foreign_objects_are_left_alone_and_counted(yard: Yard) -> None:
    yard.bench.export(yard.source)
    for key in ("packs/readme", "packs/zz/" + "0" * 64, "pages/ab/" + "AB" * 32):
        yard.store.put(key, b"somebody's")
    yard.wait(30 * DAY)
    plan = yard.collect()
    assert plan.packs is not None
    assert plan.pages is not None
    assert (plan.packs.foreign, plan.pages.foreign) == (2, 1)
    assert "packs/readme" in yard.keys("packs/")


def test_a_forgotten_point_comes_back_within_a_day_and_not_later(yard: Yard) -> None:
    age(yard, 2)
    forget(yard.repository, yard.bench.point(2), reason="a slip")
    with pytest.raises(CatalogueError):
        recall(yard.repository, "vm", 1)
    yard.wait(23 * HOUR)
    yard.collect(grace=HOUR)
    again = recall(yard.repository, "vm", 2)
    assert again.label == "vm@3"
    yard.wait(30 * DAY)
    yard.collect()
    restored(yard)
    forget(yard.repository, yard.bench.point(3), reason="another slip")
    yard.wait(timedelta(hours=23, minutes=55))
    with pytest.raises(CatalogueError, match="too long ago") as caught:
        recall(yard.repository, "vm", 3)
    assert caught.value.remedy
    assert yard.keys("manifests/")[-1] == manifest_key("vm", 3), "nothing was committed"


def test_a_held_point_is_not_collected_even_when_it_is_forgotten(yard: Yard) -> None:
    age(yard, 2)
    hold(yard.repository, yard.bench.point(1), holder="stage", reason="on disks")
    forget(yard.repository, yard.bench.point(1), reason="by somebody who did not ask")
    yard.wait(7 * DAY)
    before = yard.keys("packs/")
    yard.collect()
    assert yard.keys("packs/") == before
    assert release(yard.repository, "vm", "stage")
    assert yard.collect().points_gone == ["vm@1"]
    restored(yard)


def test_the_collector_asks_in_the_order_that_the_model_was_searched_with(yard: Yard) -> None:
    age(yard)
    forget(yard.repository, yard.bench.point(1), reason="old")
    Session.begin(yard.repository, "dead", 1, parent=None, bases=[], disks=[], tool="test")[0].abandon()
    yard.store.put("packs/ab/" + "ab" * 32, b"left by a writer that died")
    yard.wait(2 * DAY)
    yard.store.history.clear()
    yard.collect()

    def first(verb: str, start: str) -> int:
        return next(i for i, (v, k) in enumerate(yard.store.history) if v == verb and k.startswith(start))

    def last(verb: str, start: str) -> int:
        return max(i for i, (v, k) in enumerate(yard.store.history) if v == verb and k.startswith(start))

    moments = {
        "clock": first("head", "gc/clock"),
        "tombstones": first("list", "tombstones/"),
        "objects": first("list", "pages/"),
        "sessions": first("list", "sessions/"),
        "fence": first("put", "manifests/"),
        "points": last("list", "manifests/"),
        "publish": first("put", "gc/2"),
        "delete": first("delete", "p"),
    }
    assert sorted(moments, key=moments.__getitem__) == list(COLLECTOR)
    assert last("put", "manifests/") < moments["points"], "no fence after the points are read"
    assert first("get", "manifests/") > moments["points"]


def test_a_writer_asks_in_the_order_that_the_model_was_searched_with(yard: Yard) -> None:
    age(yard, 1)
    poke(yard.source, 9 * CHUNK, os.urandom(CHUNK))
    yard.store.history.clear()
    yard.bench.export(yard.source)
    trace = yard.store.history
    announced = next(i for i, (v, k) in enumerate(trace) if v == "put" and k.endswith("/session"))
    later = trace[announced:]
    checked = [later.index(("head", manifest_key("vm", 2))), later.index(("get", manifest_key("vm", 1)))]
    checked.append(next(i for i, (v, k) in enumerate(later) if v == "list" and k.startswith("tombstones/")))
    stored = [i for i, (v, k) in enumerate(later) if v == "put" and k.startswith(("packs/", "pages/"))]
    committed = later.index(("put", manifest_key("vm", 2)))
    ended = next(i for i, (v, k) in enumerate(later) if v == "put" and k.endswith("/ended"))
    assert 0 < max(checked) < min(stored)
    assert max(stored) < committed < ended
    assert not [k for v, k in trace[:announced] if v == "put"]


def test_every_object_is_read_once(yard: Yard) -> None:
    age(yard, 6)
    yard.store.history.clear()
    yard.collect(apply=False)
    gets = [key for verb, key in yard.store.history if verb == "get"]
    assert len(gets) == len(set(gets))
    assert len(gets) <= 6 * (2 + 1)
    assert not [key for key in gets if key.startswith("packs/")]


@pytest.mark.parametrize("step", ["_list_objects", "_read_sessions"])
@pytest.mark.parametrize("sessions", ["kept", "gone"])
def test_a_collector_that_slept_while_a_point_was_forgotten_and_collected_misses_nothing(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, step: str, sessions: str
) -> None:
    age(yard)
    slept = Collection(yard.repository, apply=True)
    original = getattr(slept, step)

    def sleep() -> None:
        original()
        forget(yard.repository, yard.bench.point(1), reason="test")
        yard.wait(2 * DAY)
        keep = [(key, bytes(yard.store.get(key))) for key in yard.keys("sessions/vm/0000000001-")]
        assert yard.collect().points_gone == ["vm@1"]
        for key, data in keep if sessions == "kept" else ():
            yard.store.put(key, data)

    monkeypatch.setattr(slept, step, sleep)
    slept.run()
    restored(yard)


def test_a_collector_that_slept_while_another_one_collected_says_so(yard: Yard) -> None:
    """It is no damage, and nothing is named as missing."""
    for turn in range(3):
        poke(yard.source, turn * CHUNK, os.urandom(CHUNK))
        yard.bench.export(yard.source, full=True)
        yard.wait(7 * DAY)
    slept: list[str] = []

    def sleep(counters: Counters) -> None:
        # The manifests are read, and their indexes are not.
        if counters.done == 1 and not slept:
            slept.append("for a day")
            forget(yard.repository, yard.bench.point(2), reason="meanwhile")
            yard.wait(25 * HOUR)
            yard.collect()

    with pytest.raises(CatalogueError, match="taken what it needs since this one began, 1 d 1 h ago") as said:
        yard.collect(watch=sleep)
    assert "nothing is wrong" in said.value.remedy
    assert slept
    yard.collect()
    restored(yard)


@pytest.mark.parametrize("remembers", ["the bucket", "the host"])
@pytest.mark.parametrize("gone", ["the newest points", "the machine"])
def test_a_machine_that_had_come_further_stops_the_collection(
    yard: Yard, tmp_path: Path, remembers: str, gone: str
) -> None:
    """No gap tells of what is missing at the end, and no session any more: a rule expired it, a listing is cut short,
    or somebody put an older state in place of the bucket."""
    age(yard)
    yard.bench.export(yard.source, machine="other", full=True)
    if remembers == "the host":
        yard.repository.seen = Seen(tmp_path / "seen", yard.repository.document.id)
    yard.wait(2 * DAY)
    yard.collect()
    plans = [key for key in yard.keys("gc/") if key != "gc/clock"]
    yard.store.inner.delete_many(plans if remembers == "the host" else [])
    assert not yard.keys("sessions/vm/0")
    lost = [manifest_key("vm", sequence) for sequence in ((2, 3) if gone == "the newest points" else (1, 2, 3))]
    kept = [(key, bytes(yard.store.get(key))) for key in lost]
    yard.store.inner.delete_many(lost)
    yard.wait(2 * DAY)
    yard.store.deleted.clear()
    with pytest.raises(CorruptObject, match=lost[0]) as caught:
        yard.collect()
    assert "--missing" in caught.value.remedy
    assert not yard.store.deleted
    assert {d.key for d in needs_of_all(yard.repository).damages} == set(lost), "a scrub names them"
    for key, data in kept:
        yard.store.inner.put(key, data)
    assert not yard.collect().doomed
    restored(yard)
    yard.store.inner.delete_many(lost)
    for key in lost:
        forget_lost(yard.repository, PointName("vm", int(key[-10:])), reason="lost for good")
    yard.wait(2 * DAY)
    assert yard.collect().doomed


class FullStore(Layer):
    """Takes nothing until something was deleted."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.full = False

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        if self.full:
            raise StoreFull(f"cannot put {key}: no space left")
        self.inner.put(key, data, create=create)

    def delete_many(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        self.inner.delete_many(keys)
        self.full = self.full and not keys


def test_a_full_store_is_collected_though_nothing_can_be_written_there(yard: Yard) -> None:
    age(yard)
    yard.bench.export(yard.source, full=True)
    for sequence in (1, 2, 3):
        forget(yard.repository, yard.bench.point(sequence), reason="old")
    yard.wait(2 * DAY)
    Session.begin(yard.repository, "dead", 1, parent=None, bases=[], disks=[], tool="test")[0].abandon()
    yard.store.put("packs/ab/" + "ab" * 32, b"the last that it took")
    store = FullStore(yard.store)
    yard.bench.repository = Repository(store, yard.repository.document, yard.repository.sealing)
    store.full = True
    yard.wait(30 * DAY)
    told: list[str] = []
    plan = Collection(yard.repository, apply=True, tell=told.append).run()
    assert plan.doomed
    assert len(told) == 1
    assert plan.fenced == []
    assert "packs/ab/" + "ab" * 32 in yard.keys("packs/"), "younger than the grace by the last write"
    assert len([key for key in yard.keys("gc/") if key != "gc/clock"]) == 1, "published when there was room"
    restored(yard)
    assert yard.collect().fenced == ["dead@1"]
    restored(yard)
