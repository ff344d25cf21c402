"""Transient errors are tried again until the deadline, others never, and a lost answer is not a lost race."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pipeline.errors import (
    AccessDenied,
    AlreadyExists,
    CorruptObject,
    NotFound,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from pipeline.store.fault import Fail, FaultyStore, LoseAnswer, Rule
from pipeline.store.memory import MemoryStore
from pipeline.store.retry import Backoff, RetryStore

DOWN = StoreUnavailable("down")


@dataclass
class Clock:
    """Time that passes only by sleeping (and by `step` with each look at the clock)."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def read(self) -> float:
        return self.now


def make(*plan: Rule, deadline: float = 100.0) -> tuple[RetryStore, FaultyStore, Clock]:
    clock = Clock()
    faulty = FaultyStore(MemoryStore(), plan)
    backoff = Backoff(first=1, longest=8, deadline=deadline, sleep=clock.sleep, clock=clock.read)
    return RetryStore(faulty, backoff), faulty, clock


@pytest.mark.parametrize("verb", ["put", "get", "get_range", "head", "list", "delete_many"])
def test_a_transient_error_is_tried_again(verb: str) -> None:
    store, faulty, clock = make(Rule(Fail(DOWN), verb=verb, nth=1, last=3))
    faulty.inner.put("a", b"abc")
    if verb == "put":
        store.put("a", b"abc")
    elif verb == "get":
        assert bytes(store.get("a")) == b"abc"
    elif verb == "get_range":
        assert bytes(store.get_range("a", 1, 1)) == b"b"
    elif verb == "head":
        assert store.head("a") is not None
    elif verb == "list":
        assert [info.key for info in store.list("")] == ["a"]
    else:
        store.delete_many(["a"])
        assert faulty.inner.head("a") is None
    assert faulty.calls[verb] == 4
    assert len(clock.slept) == 3


@pytest.mark.parametrize(
    "error",
    [AccessDenied("no"), StoreFull("full"), StoreError("odd"), NotFound("gone"), AlreadyExists("there"),
     CorruptObject("short")],
)  # fmt: skip
def test_a_permanent_error_is_never_tried_again(error: Exception) -> None:
    store, faulty, clock = make(Rule(Fail(error)))
    for verb in (
        lambda: store.put("a", b""),
        lambda: store.get("a"),
        lambda: store.get_range("a", 0, 1),
        lambda: store.head("a"),
        lambda: next(store.list("")),
        lambda: store.delete_many(["a"]),
    ):
        with pytest.raises(type(error)):
            verb()
    assert sum(faulty.calls.values()) == 6
    assert clock.slept == []


def test_it_gives_up_at_the_deadline_and_says_how_often_it_tried() -> None:
    store, faulty, clock = make(Rule(Fail(StoreUnavailable("down", remedy="check"))), deadline=60)
    with pytest.raises(StoreUnavailable, match=r"down \(gave up after \d+ attempts in \d+ s\)\n  check"):
        store.get("a")
    assert clock.now <= 60
    assert faulty.calls["get"] == len(clock.slept) + 1
    assert faulty.calls["get"] >= 60 / 8


def test_the_wait_grows_up_to_its_bound_with_full_jitter() -> None:
    store, _, clock = make(Rule(Fail(StoreUnavailable("down"))), deadline=5000)
    with pytest.raises(StoreUnavailable):
        store.get("a")
    for attempt, wait in enumerate(clock.slept):
        assert 0 <= wait <= min(8, 2**attempt)
    late = clock.slept[5:]
    assert min(late) < 2
    assert max(late) > 6


def test_a_create_whose_answer_was_lost_has_succeeded() -> None:
    store, faulty, _ = make(Rule(LoseAnswer(), verb="put", nth=1))
    store.put("manifests/1", b"ours", create=True)
    assert faulty.calls == {"put": 2, "get": 1}
    assert bytes(store.get("manifests/1")) == b"ours"


def test_a_create_that_lost_against_other_bytes_fails_even_after_a_lost_answer() -> None:
    store, faulty, _ = make(Rule(Fail(DOWN), verb="put", nth=1))
    faulty.inner.put("manifests/1", b"theirs")
    with pytest.raises(AlreadyExists):
        store.put("manifests/1", b"ours", create=True)
    assert bytes(store.get("manifests/1")) == b"theirs"


def test_a_create_that_fails_at_once_does_not_compare() -> None:
    store, faulty, _ = make()
    faulty.inner.put("a", b"same")
    with pytest.raises(AlreadyExists):
        store.put("a", b"same", create=True)
    assert faulty.calls == {"put": 1}


def test_the_comparison_after_a_lost_answer_is_tried_again_too() -> None:
    store, faulty, _ = make(Rule(LoseAnswer(), verb="put", nth=1), Rule(Fail(DOWN), verb="get", nth=1))
    store.put("a", b"ours", create=True)
    assert faulty.calls["get"] == 2


def test_a_cut_listing_goes_on_where_it_was_cut() -> None:
    store, faulty, _ = make(Rule(LoseAnswer(), verb="list", nth=1, last=6))
    for key in "abcdef":
        faulty.inner.put(key, b"x")
    assert [info.key for info in store.list("")] == list("abcdef")


def test_a_listing_that_stays_cut_fails_and_is_not_short() -> None:
    store, faulty, _ = make(Rule(Fail(StoreUnavailable("down")), verb="list", nth=2, last=10_000))
    for key in "abc":
        faulty.inner.put(key, b"x")
    faulty._plan += (Rule(LoseAnswer(), verb="list", nth=1),)
    faulty._counts.append(0)
    listing = store.list("")
    assert next(listing).key == "a"
    with pytest.raises(StoreUnavailable, match="gave up"):
        list(listing)


def test_many_deletions_are_tried_again_in_batches() -> None:
    store, faulty, _ = make(Rule(Fail(DOWN), verb="delete_many", nth=2))
    keys = [f"{number:05d}" for number in range(2500)]
    for key in keys:
        faulty.inner.put(key, b"x")
    store.delete_many(iter(keys))
    assert list(faulty.inner.list("")) == []
    assert faulty.calls["delete_many"] == 4


def test_a_long_wait_is_told_once_a_minute_and_a_short_one_never() -> None:
    told: list[str] = []
    clock = Clock()
    backoff = Backoff(first=1, longest=8, deadline=200, sleep=clock.sleep, clock=clock.read)
    short = FaultyStore(MemoryStore(), [Rule(Fail(StoreUnavailable("down")), verb="get", nth=1)])
    short.inner.put("a", b"abc")
    RetryStore(short, backoff, tell=told.append).get("a")
    assert told == []
    down = RetryStore(FaultyStore(MemoryStore(), [Rule(Fail(StoreUnavailable("down")))]), backoff, tell=told.append)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            down.get("a")
    assert all(text.startswith("down; it is tried again for ") for text in told[:1])
    assert 4 <= len(told) <= 1 + clock.now // 60
