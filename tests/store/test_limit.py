"""Never more requests at once, nor more bytes a second, than was allowed."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import StoreUnavailable
from pipeline.store.base import Bytes, ObjectInfo
from pipeline.store.fault import Fail, FaultyStore, Rule
from pipeline.store.limit import LimitStore, Rate
from pipeline.store.memory import MemoryStore


class Watched(MemoryStore):
    """Remembers how many calls were under way at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._watch = threading.Lock()

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        with self._watch:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.005)
        super().put(key, data, create=create)
        with self._watch:
            self.now -= 1


def test_no_more_requests_at_a_time_than_allowed() -> None:
    inner = Watched()
    store = LimitStore(inner, parallel=3)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda number: store.put(f"{number}", b"x"), range(40)))
    assert inner.most == 3


def test_a_failed_request_gives_its_slot_back() -> None:
    store = LimitStore(FaultyStore(MemoryStore(), [Rule(Fail(StoreUnavailable("down")), nth=1, last=5)]), parallel=1)
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            store.get("a")
    assert store.head("a") is None


def test_a_listing_holds_no_slot_while_its_entries_are_worked_on() -> None:
    store = LimitStore(MemoryStore(), parallel=1)
    for key in "abc":
        store.put(key, b"x")

    def read(info: ObjectInfo) -> bytes:
        return bytes(store.get(info.key))

    assert [read(info) for info in store.list("")] == [b"x"] * 3


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def read(self) -> float:
        return self.now


def test_the_rate_is_kept_over_time() -> None:
    clock = Clock()
    rate = Rate(1000, sleep=clock.sleep, clock=clock.read)
    start = clock.now
    for _ in range(50):
        rate.take(200)
    elapsed = clock.now - start
    assert 8.5 <= elapsed <= 10  # 10,000 bytes less one second's burst


def test_unused_rate_is_saved_for_one_second_only() -> None:
    clock = Clock()
    rate = Rate(1000, sleep=clock.sleep, clock=clock.read)
    clock.now += 3600
    start = clock.now
    for _ in range(31):
        rate.take(100)
    assert clock.now - start == pytest.approx(2.0, abs=0.11)


def test_no_limit_never_waits() -> None:
    def forbidden(_: float) -> None:
        raise AssertionError

    rate = Rate(0, sleep=forbidden)
    for _ in range(100):
        rate.take(1 << 30)


def test_bytes_in_both_directions_are_limited_on_their_own() -> None:
    store = LimitStore(MemoryStore(), parallel=4, upload=1e6, download=2e6)
    start = time.monotonic()
    for number in range(3):
        store.put(f"{number}", bytes(100_000))
    up = time.monotonic() - start
    assert 0.15 <= up < 2
    start = time.monotonic()
    for number in range(3):
        store.get(f"{number}")
    assert time.monotonic() - start < up


def test_no_more_requests_a_second_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    store = LimitStore(MemoryStore(), parallel=4, requests=10)
    now = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now
        waited.append(seconds)
        now += seconds

    monkeypatch.setattr(store, "_requests", Rate(10, sleep=sleep, clock=lambda: now))
    for number in range(20):
        store.put(f"{number}", b"x")
    store.head("0")
    bytes(store.get("0"))
    bytes(store.get_range("0", 0, 1))
    assert len(list(store.list(""))) == 20
    store.delete_many(["0", "1"])
    requests = 20 + 5
    assert sum(waited) == pytest.approx((requests - 1) / 10)
