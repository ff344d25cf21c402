"""The number of requests at once finds what a store can do, and falls at once when it asks for it."""

from __future__ import annotations

import heapq
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import StoreUnavailable
from pipeline.store.adaptive import LEAST, SLOW, AdaptiveStore, Window
from pipeline.store.fault import Fail, FaultyStore, Rule
from pipeline.store.memory import MemoryStore


class Knee:
    """A store that serves `knee` requests at once; more wait in line, and above `refuse_above` are sent away.

    Time is simulated: each request takes `seconds` times the line at the moment it came.
    """

    def __init__(self, window: Window, *, knee: int, seconds: float = 0.05, refuse_above: int = 10**9) -> None:
        self.window, self.knee, self.seconds, self.refuse_above = window, knee, seconds, refuse_above
        self.time = 0.0
        self.served = self.refused = 0

    def run(self, requests: int) -> None:
        """Keep as many under way as the window allows until that many were answered."""
        under_way: list[tuple[float, float, bool]] = []
        stop = self.served + self.refused + requests
        while self.served + self.refused < stop:
            while len(under_way) < max(1, int(self.window.size)):
                line = len(under_way) + 1
                away = line > self.refuse_above
                took = self.seconds / 10 if away else self.seconds * max(1.0, line / self.knee)
                heapq.heappush(under_way, (self.time + took, self.time, away))
            ended, began, away = heapq.heappop(under_way)
            self.time = ended
            if away:
                self.refused += 1
                self.window.refused(began, ended)
            else:
                self.served += 1
                self.window.answered("get", began, ended, full=len(under_way) + 1 >= int(self.window.size))


def test_it_grows_to_the_bound_where_the_store_keeps_up() -> None:
    window = Window(32)
    window.size = 4
    Knee(window, knee=64).run(2000)
    assert window.size == 32


@pytest.mark.parametrize("knee", [4, 8, 16])
def test_beyond_the_knee_the_line_stays_short_and_nothing_is_lost(knee: int) -> None:
    window = Window(256)
    store = Knee(window, knee=knee)
    store.run(20_000)
    assert knee <= window.size <= SLOW * max(knee, LEAST) + 1
    began, served = store.time, store.served
    store.run(5000)
    best = knee / store.seconds
    assert (store.served - served) / (store.time - began) > 0.9 * best


def test_a_store_that_asks_to_slow_down_is_asked_less_at_once() -> None:
    window = Window(64)
    store = Knee(window, knee=64, refuse_above=20)
    store.run(200)
    assert window.size <= 21
    refused, served = store.refused, store.served
    store.run(10_000)
    assert store.refused - refused < 0.05 * (store.served - served)
    assert window.size >= 8


def test_many_refusals_of_one_moment_count_once() -> None:
    window = Window(64)
    window.size = 64
    for _ in range(30):
        window.refused(began=1.0, ended=2.0)
    assert window.size == 32
    window.refused(began=2.5, ended=3.0)
    assert window.size == 16


def test_it_recovers_when_the_store_does() -> None:
    window = Window(64)
    store = Knee(window, knee=64, refuse_above=4)
    store.run(500)
    assert window.size <= 6
    store.refuse_above = 10**9
    store.run(5000)
    assert window.size == 64


def test_a_store_that_became_slower_for_good_is_accepted() -> None:
    window = Window(32)
    store = Knee(window, knee=64)
    store.run(500)
    store.seconds *= 20
    store.run(300)
    assert window.size < 16
    store.run(6_000)
    assert window.size == 32


def test_never_less_than_one_nor_more_than_allowed() -> None:
    window = Window(2)
    for at in range(20):
        window.refused(at + 0.5, at + 1)
    assert window.size == 1
    Knee(window, knee=8).run(100)
    assert window.size == 2


def test_the_layer_holds_back_after_a_refusal() -> None:
    """Four at once until the store refuses; then two."""
    lock, arrived = threading.Lock(), threading.Barrier(2)
    now = most = 0

    class Counting(MemoryStore):
        def head(self, key: str) -> None:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            arrived.wait(timeout=20)  # at least two are let in together
            with lock:
                now -= 1

    faulty = FaultyStore(Counting(), [Rule(Fail(StoreUnavailable("SlowDown")), nth=1, last=1)])
    store = AdaptiveStore(faulty, most=4)
    with pytest.raises(StoreUnavailable):
        store.get("a")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store.head, [f"k{number}" for number in range(4)]))
    assert most == 2
