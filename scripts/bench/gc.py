"""Collection: how long a plan takes, how much memory and how many requests, over a simulated store."""

from __future__ import annotations

import time

from pipeline.collect.collector import Collection
from pipeline.repository import Repository
from scripts.bench.apart import apart
from scripts.bench.measure import own_peak
from scripts.bench.simulated import PagedStore, simulated
from scripts.bench.verdict import Bound, judge

SECONDS, MEMORY, REQUESTS = 60, 300, 1.1


def gc(*, packs: int, points: int, machines: int, doomed: float, seed: int, check: bool) -> int:
    """Plan once; the simulated repository is in the same process and on its account. Returns an exit code."""
    bounds = apart(_measure, packs=packs, points=points, machines=machines, doomed=doomed, seed=seed)
    return judge(bounds) if check else 0


def _measure(*, packs: int, points: int, machines: int, doomed: float, seed: int) -> list[Bound]:
    store = simulated(packs=packs, points=points, machines=machines, doomed=doomed, seed=seed)
    before = own_peak()
    repository = Repository.open(store)
    store.requests, store.read, store.twice = dict.fromkeys(store.requests, 0), set(), []
    began, cpu = time.monotonic(), time.process_time()
    plan = Collection(repository).run()
    seconds = time.monotonic() - began
    peak = own_peak()
    assert plan.packs is not None
    assert plan.packs.doomed.count == packs - round(packs * (1 - doomed)), "the plan is wrong"
    total, lists = sum(store.requests.values()), _pages(store)
    wanted = lists + 2 * plan.points + plan.points  # one disk a point
    print(
        f"{packs:,} packs, {plan.points:,} points of {plan.machines} machines: planned in {seconds:.1f} s "
        f"({time.process_time() - cpu:.1f} CPU seconds), peak {peak / 2**20:.0f} MiB "
        f"(with the simulated store, {before / 2**20:.0f} MiB)"
    )
    print(f"requests {total:,}: {store.requests}; {len(store.twice)} objects read twice; {wanted:,} by the rule")
    return [
        Bound("seconds to plan", seconds, SECONDS, " s"),
        Bound("peak", peak / 2**20, MEMORY, " MiB"),
        Bound("requests by the rule", total / wanted, REQUESTS),
        Bound("objects read twice", len(store.twice), 0),
    ]


def _pages(store: PagedStore) -> int:
    """Answers that the listings of packs, pages and manifests need at least."""
    prefixes = ("pages/", "manifests/")
    counts = [len(store.packs), *(sum(1 for _ in store.inner.list(prefix)) for prefix in prefixes)]
    return sum(-(-count // 1000) for count in counts)
