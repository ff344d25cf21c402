"""The layer that breaks things does break them, exactly when it was told to."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from pipeline.errors import StoreFull, StoreUnavailable
from pipeline.store.directory import DirectoryStore
from pipeline.store.fault import Delay, Fail, FaultyStore, Flip, Kill, LoseAnswer, Rule, Truncate, startswith
from pipeline.store.memory import MemoryStore


def test_without_a_plan_nothing_changes_and_calls_are_counted() -> None:
    store = FaultyStore(MemoryStore())
    store.put("a", b"x")
    store.get("a")
    store.get("a")
    assert store.calls == {"put": 1, "get": 2}
    assert store.history == [("put", "a"), ("get", "a"), ("get", "a")]


def test_the_nth_call_that_matches_fails_before_it_acts() -> None:
    store = FaultyStore(MemoryStore(), [Rule(Fail(StoreFull("full")), verb="put", key=startswith("b/"), nth=2)])
    for key in ("a/1", "b/1", "a/2"):
        store.put(key, b"x")
    with pytest.raises(StoreFull, match="full"):
        store.put("b/2", b"x")
    store.put("b/3", b"x")
    assert [info.key for info in store.inner.list("")] == ["a/1", "a/2", "b/1", "b/3"]


def test_a_range_of_calls_fails() -> None:
    store = FaultyStore(MemoryStore(), [Rule(Fail(StoreUnavailable("down")), nth=2, last=3)])
    assert store.head("a") is None
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.head("a")
    assert store.head("a") is None


def test_a_lost_answer_leaves_the_work_done() -> None:
    store = FaultyStore(MemoryStore(), [Rule(LoseAnswer(), verb="put")])
    with pytest.raises(StoreUnavailable, match="lost"):
        store.put("a", b"x")
    assert bytes(store.get("a")) == b"x"


def test_a_listing_is_cut_in_the_middle() -> None:
    inner = MemoryStore()
    for key in "abc":
        inner.put(key, b"x")
    listing = FaultyStore(inner, [Rule(LoseAnswer(), verb="list")]).list("")
    assert next(listing).key == "a"
    with pytest.raises(StoreUnavailable):
        next(listing)


def test_data_are_damaged_in_either_direction() -> None:
    inner = MemoryStore()
    put = FaultyStore(inner, [Rule(Flip(-1), verb="put", nth=1), Rule(Truncate(2), verb="put", nth=2)])
    put.put("a", b"abc")
    put.put("b", b"abc")
    assert (bytes(inner.get("a")), bytes(inner.get("b"))) == (b"abb", b"ab")
    got = FaultyStore(inner, [Rule(Flip(0)), Rule(Truncate(2))])
    assert bytes(got.get("a")) == b"`b"
    assert bytes(got.get_range("a", 1, 2)) == b"cb"


def test_a_call_is_delayed() -> None:
    store = FaultyStore(MemoryStore(), [Rule(Delay(0.05))])
    start = time.monotonic()
    store.head("a")
    assert time.monotonic() - start >= 0.05


@pytest.mark.parametrize("after", [False, True])
def test_the_process_is_killed_before_or_after(after: bool, tmp_path: Path) -> None:
    inner = DirectoryStore(tmp_path)
    child = os.fork()
    if child == 0:
        FaultyStore(inner, [Rule(Kill(after=after), verb="put")]).put("a", b"x")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert (inner.head("a") is not None) == after
