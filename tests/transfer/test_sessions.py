"""One writer a machine; a commit that is answered late, never or by somebody else."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from manifests.entry import PackTable, empty_rows
from manifests.envelope import Kind
from manifests.manifest import encode_record
from manifests.names import manifest_key
from pipeline.catalogue import forget
from pipeline.errors import CorruptObject, SessionFenced, SessionHeld, StoreUnavailable
from pipeline.progress import Counters
from pipeline.repository import Repository
from pipeline.store.base import Bytes, ObjectInfo
from pipeline.store.directory import DirectoryStore
from pipeline.store.fault import Fail, FaultyStore, LoseAnswer, Rule, startswith
from pipeline.store.layer import Layer
from pipeline.store.memory import MemoryStore
from pipeline.store.retry import Backoff, RetryStore
from pipeline.transfer.session import EXPIRY, Session
from transfer.killing import in_child
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, poke, same

AT_ONCE = Backoff(first=0.0, deadline=5.0)
MANIFESTS = startswith("manifests/")


@pytest.fixture(params=[True, False], ids=["conditional put", "no conditional put"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Workbench:
    bench = Workbench(tmp_path)
    if not request.param:
        document = bench.repository.document
        plain = replace(document, abilities={**document.abilities, "conditional_put": False})
        bench.repository = Repository(bench.store, plain, bench.repository.sealing)
    return bench


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "source", MIB, {0: noise(5 * CHUNK, 1)})


class ClockStore(Layer):
    """A store whose clock is wrong by `skew`, and where objects of one session have grown old by `age`."""

    def __init__(self, inner: MemoryStore, skew: timedelta, age: timedelta, old: str) -> None:
        super().__init__(inner)
        self.skew, self.age, self.old = skew, age, old

    def _shifted(self, info: ObjectInfo) -> ObjectInfo:
        age = self.age if info.key.startswith(self.old) else timedelta()
        return replace(info, modified=info.modified + self.skew - age)

    def head(self, key: str) -> ObjectInfo | None:
        info = self.inner.head(key)
        return info and self._shifted(info)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        return map(self._shifted, self.inner.list(prefix, after=after))


def test_a_second_export_is_refused_and_told_who_holds_the_machine(bench: Workbench, source: Path) -> None:
    told: list[SessionHeld] = []

    def meanwhile(_counters: Counters) -> None:
        if not told:
            with pytest.raises(SessionHeld) as caught:
                bench.elsewhere("other").export(source)
            told.append(caught.value)

    bench.export(source, watch=meanwhile)
    assert str(os.getpid()) in told[0].message
    assert socket.gethostname() in told[0].message
    assert told[0].remedy
    bench.verified()
    bench.export(source)


def test_a_session_that_this_very_process_gave_up_does_not_stand_in_its_way(bench: Workbench, source: Path) -> None:
    """The store was away, so that not even the end could be written; a process that lives on tries again."""
    faulty = FaultyStore(bench.store, [Rule(Fail(StoreUnavailable("down")), verb="put", key=startswith("packs/"))])
    with pytest.raises(StoreUnavailable):
        bench.through(faulty).export(source)
    assert not [info.key for info in bench.store.list("sessions/") if info.key.endswith("/ended")]
    bench.export(source)
    bench.verified()


def test_exports_of_two_machines_do_not_disturb_each_other(bench: Workbench, source: Path) -> None:
    done: list[bool] = []

    def meanwhile(_counters: Counters) -> None:
        if not done:
            done.append(True)
            bench.elsewhere("other").export(source, machine="other")

    bench.export(source, watch=meanwhile)
    assert bench.point(machine="other").manifest.sequence == 1


def test_a_dead_writer_of_this_host_is_recognised_at_once(tmp_path: Path, source: Path) -> None:
    bench = Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True))

    def announce_and_die() -> None:
        begin(bench)
        os._exit(0)

    assert not in_child(announce_and_die)
    assert len(list(bench.store.list("sessions/"))) == 1
    assert bench.export(source).resumed


def begin(bench: Workbench) -> Session:
    session, _ = Session.begin(bench.repository, "vm", 1, parent=None, bases=[], disks=[], tool="test")
    session.abandon()
    return session


@pytest.mark.parametrize("skew", [timedelta(), timedelta(hours=1), timedelta(hours=-1)], ids=["right", "fast", "slow"])
def test_a_silent_writer_of_another_host_is_given_up_by_the_clock_of_the_store(
    bench: Workbench, source: Path, monkeypatch: pytest.MonkeyPatch, skew: timedelta
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere.example")
        begin(bench)
    assert isinstance(bench.store, MemoryStore)
    document = bench.repository.document

    def seen(age: timedelta) -> Workbench:
        assert isinstance(bench.store, MemoryStore)
        other = bench.through(ClockStore(bench.store, skew, age, "sessions/vm/0"))
        other.repository = Repository(other.store, document, bench.repository.sealing)
        return other

    for age in (timedelta(), EXPIRY - timedelta(minutes=1)):
        with pytest.raises(SessionHeld, match=r"elsewhere\.example"):
            seen(age).export(source)
    seen(EXPIRY + timedelta(minutes=1)).export(source)
    bench.verified()


def test_another_container_of_this_host_is_not_judged_by_its_process_number(
    bench: Workbench, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.readlink
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "readlink", lambda path, **more: "pid:[1]" if str(path) == "/proc/self/ns/pid" else real(path)
        )
        begin(bench)
    with pytest.raises(SessionHeld):
        bench.export(source)


@pytest.mark.parametrize("verb", ["manifest", "session", "pack", "journal", "page", "ended"])
def test_a_lost_answer_is_a_success(bench: Workbench, source: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.transfer.send.JOURNAL_BYTES", 1)
    keys: dict[str, Callable[[str], bool]] = {
        "manifest": MANIFESTS,
        "session": lambda key: key.endswith("/session"),
        "pack": startswith("packs/"),
        "page": startswith("pages/"),
        "journal": lambda key: "/journal/" in key,
        "ended": lambda key: key.endswith("/ended"),
    }
    for turn in range(3):
        poke(source, turn * CHUNK, b"turn %d" % turn)
        faulty = FaultyStore(bench.store, [Rule(LoseAnswer(), verb="put", key=keys[verb], nth=1)])
        result = bench.through(RetryStore(faulty, AT_ONCE)).export(source) if bench.repository.conditional_put else None
        if result is None:
            other = bench.through(RetryStore(faulty, AT_ONCE))
            other.repository = Repository(other.store, bench.repository.document, bench.repository.sealing)
            result = other.export(source)
        assert result.sequence == turn + 1
        bench.verified()
    bench.restore()
    assert same(source, bench.restored())


def test_an_answer_that_stays_lost_leaves_a_point_that_counts(bench: Workbench, source: Path) -> None:
    faulty = FaultyStore(bench.store, [Rule(LoseAnswer(), verb="put", key=MANIFESTS, nth=1)])
    with pytest.raises(StoreUnavailable):
        bench.through(faulty).export(source)
    bench.restore()
    assert same(source, bench.restored())


class Intruder(Layer):
    """Puts somebody else's record at a key just before we do."""

    def __init__(self, inner: MemoryStore, record: Callable[[str], bytes]) -> None:
        super().__init__(inner)
        self.record = record
        self.done = False

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        if key.startswith("manifests/") and not self.done:
            self.done = True
            self.inner.put(key, self.record(key))
        self.inner.put(key, data, create=create)


def test_a_fence_at_our_key_means_that_nothing_is_committed(bench: Workbench, source: Path) -> None:
    assert isinstance(bench.store, MemoryStore)
    void = {"reason": "silent for too long", "time": "2026-01-01T00:00:00Z", "by": "collector"}
    if bench.repository.conditional_put:
        store = Intruder(
            bench.store, lambda key: encode_record(Kind.VOID, void, sealing=bench.repository.sealing, key=key)
        )
        fenced = bench.through(store)
    else:
        key = manifest_key("vm", 1)
        fenced = bench

        def now(_counters: Counters) -> None:
            bench.store.put(key, encode_record(Kind.VOID, void, sealing=bench.repository.sealing, key=key))

    with pytest.raises(SessionFenced) as caught:
        fenced.export(source, **({} if bench.repository.conditional_put else {"watch": now}))
    assert caught.value.remedy
    result = bench.export(source)
    assert result.sequence == 2
    bench.restore()
    assert same(source, bench.restored())


def test_a_parent_that_is_forgotten_while_an_export_begins_fences_it(bench: Workbench, source: Path) -> None:
    bench.export(source)
    point = bench.point()

    class Forgetting(Layer):
        def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
            self.inner.put(key, data, create=create)
            if key.endswith("/session"):
                forget(bench.repository, point, reason="meanwhile")

    with pytest.raises(SessionFenced, match="forgotten"):
        bench.through(Forgetting(bench.store)).export(source)
    assert bench.export(source).disks[0].mode == "full"
    bench.verified()


@pytest.mark.parametrize("verb", ["list", "get", "put", "head"])
def test_a_store_that_fails_before_a_session_begins_leaves_nothing(bench: Workbench, source: Path, verb: str) -> None:
    before = list(bench.store.list(""))
    with pytest.raises(StoreUnavailable):
        bench.through(FaultyStore(bench.store, [Rule(Fail(StoreUnavailable("down")))])).export(source)
    assert list(bench.store.list("")) == before


def test_a_process_takes_over_the_session_it_left_when_the_store_went_away(bench: Workbench, source: Path) -> None:
    for fault, part in (
        (Fail(StoreUnavailable("gone")), "/session"),
        (LoseAnswer(), "/session"),
        (Fail(StoreUnavailable("gone")), "packs/"),
        (Fail(StoreUnavailable("gone")), "pages/"),
    ):
        rule = Rule(fault, verb="put", key=lambda key, part=part: part in key)  # type: ignore[misc]
        with pytest.raises(StoreUnavailable):
            bench.through(FaultyStore(bench.store, [rule])).export(source)
    assert bench.export(source).resumed
    bench.verified()


def test_a_session_that_another_thread_of_this_process_holds_is_not_taken_over(bench: Workbench, source: Path) -> None:
    held, _ = Session.begin(bench.repository, "vm", 1, parent=None, bases=[], disks=[], tool="test")
    with pytest.raises(SessionHeld):
        bench.export(source)
    held.abandon()
    assert bench.export(source).resumed


@pytest.mark.parametrize("how", ["damaged", "replaced", "void"])
@pytest.mark.parametrize("what", ["vm", "golden"])
def test_a_root_that_is_not_the_announced_one_is_refused(bench: Workbench, source: Path, how: str, what: str) -> None:
    bench.export(source)
    bench.export(source, machine="golden")
    point = bench.point(machine=what)
    key = manifest_key(what, 1)
    kept = bytes(bench.store.get(key))
    other = {
        "damaged": kept[:-40] + bytes([kept[-40] ^ 1]) + kept[-39:],
        "replaced": point.manifest.model_copy(update={"tool": "somebody"}).encode(bench.repository.sealing),
        "void": encode_record(
            Kind.VOID, {"reason": "", "time": "", "by": ""}, sealing=bench.repository.sealing, key=key
        ),
    }[how]

    class Replacing(Layer):
        def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
            self.inner.put(key, data, create=create)
            if key.endswith("/session"):
                bench.store.put(manifest_key(what, 1), other)

    replacing = bench.through(Replacing(bench.store))
    with pytest.raises(CorruptObject, match=key) as caught:
        replacing.export(source, bases=(bench.point(machine="golden"),))
    assert caught.value.remedy
    assert [info.key for info in bench.store.list("manifests/vm/")] == [manifest_key("vm", 1)]
    bench.store.put(key, kept)
    assert bench.export(source).sequence == 2
    bench.verified()


def test_a_fence_is_noticed_by_a_heartbeat_and_ends_the_export_at_its_next_journal(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.transfer.session.HEARTBEAT_SECONDS", 0.001)
    looked: list[str] = []
    twice = threading.Event()

    class Watched(Layer):
        def head(self, key: str) -> ObjectInfo | None:
            if key == manifest_key("vm", 1) and (info := self.inner.head(key)) is not None:
                looked.append(key)
                if len(looked) > 1:  # then the first answer was taken
                    twice.set()
                return info
            return self.inner.head(key)

    other = bench.through(Watched(bench.store))
    other.repository = Repository(other.store, bench.repository.document, bench.repository.sealing)
    session, _ = Session.begin(other.repository, "vm", 1, parent=None, bases=[], disks=[], tool="test")
    try:
        session.check_free()
        void = {"reason": "silent", "time": "", "by": ""}
        key = manifest_key("vm", 1)
        bench.store.put(key, encode_record(Kind.VOID, void, sealing=bench.repository.sealing, key=key))
        assert twice.wait(30)
        with pytest.raises(SessionFenced, match=key) as caught:
            session.journal(0, np.zeros(0, "<u8"), empty_rows(0), PackTable(), {})
        assert caught.value.remedy
        with pytest.raises(SessionFenced):
            session.check_free()
    finally:
        session.abandon()
