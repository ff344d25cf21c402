"""Every attempt is counted with its bytes, time and failure, and logged without contents."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import NotFound, StoreUnavailable
from pipeline.store.fault import Delay, Fail, FaultyStore, LoseAnswer, Rule
from pipeline.store.memory import MemoryStore
from pipeline.store.open import open_store
from pipeline.store.retry import Backoff, RetryStore
from pipeline.store.trace import Tally, TraceStore


def test_requests_and_bytes_are_counted_by_verb() -> None:
    tally = Tally()
    store = TraceStore(MemoryStore(), tally)
    store.put("a", b"12345")
    store.put("b", memoryview(b"12345678").cast("Q"))
    store.get("a")
    store.get_range("a", 1, 3)
    store.head("a")
    list(store.list(""))
    store.delete_many(["a", "b"])
    counts = tally.snapshot()
    assert {verb: (count.requests, count.sent, count.received) for verb, count in counts.items()} == {
        "put": (2, 13, 0),
        "get": (1, 0, 5),
        "get_range": (1, 0, 3),
        "head": (1, 0, 0),
        "list": (1, 0, 0),
        "delete_many": (1, 0, 0),
    }
    total = tally.total()
    assert (total.requests, total.sent, total.received, total.errors) == (7, 13, 8, 0)


def test_failures_are_counted_and_move_no_bytes() -> None:
    tally = Tally()
    store = TraceStore(FaultyStore(MemoryStore(), [Rule(Fail(StoreUnavailable("down")), verb="put")]), tally)
    with pytest.raises(StoreUnavailable):
        store.put("a", b"12345")
    with pytest.raises(NotFound):
        store.get("a")
    assert tally.snapshot()["put"].errors == 1
    assert tally.snapshot()["get"].errors == 1
    assert tally.total().sent == 0


def test_attempts_are_counted_not_operations() -> None:
    tally = Tally()
    faulty = FaultyStore(MemoryStore(), [Rule(Fail(StoreUnavailable("down")), verb="put", nth=1, last=2)])
    store = RetryStore(TraceStore(faulty, tally), Backoff(sleep=lambda _: None))
    store.put("a", b"x")
    assert (tally.snapshot()["put"].requests, tally.snapshot()["put"].errors) == (3, 2)


def test_the_time_of_a_listing_is_the_stores_not_the_callers() -> None:
    inner = MemoryStore()
    for key in "abc":
        inner.put(key, b"x")
    tally = Tally()
    for _ in TraceStore(FaultyStore(inner, [Rule(Delay(0.03))]), tally).list(""):
        time.sleep(0.05)
    assert 0.03 <= tally.snapshot()["list"].seconds < 0.1


def test_a_cut_listing_is_an_error() -> None:
    inner = MemoryStore()
    for key in "abc":
        inner.put(key, b"x")
    tally = Tally()
    with pytest.raises(StoreUnavailable):
        list(TraceStore(FaultyStore(inner, [Rule(LoseAnswer())]), tally).list(""))
    assert tally.snapshot()["list"].errors == 1


def test_many_threads_lose_no_count() -> None:
    tally = Tally()
    store = TraceStore(MemoryStore(), tally)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.put(f"{number}", b"12"), range(2000)))
    assert tally.snapshot()["put"].requests == 2000
    assert tally.snapshot()["put"].sent == 4000


def test_the_log_is_json_lines_without_contents() -> None:
    lines: list[str] = []
    store = open_store("memory://logged", log=lines.append)
    store.put("a", b"CONTENT")
    with pytest.raises(NotFound):
        store.get("absent")
    first, second = (json.loads(line) for line in lines)
    assert (first["verb"], first["key"], first["sent"]) == ("put", "a", 7)
    assert second["error"] == "NotFound"
    assert "CONTENT" not in "".join(lines)
