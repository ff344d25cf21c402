"""No order of events on a bucket loses a point: the product's own code, its requests interleaved and ill-treated."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings

from model.machine import SCENARIOS, Lost, Scenario, run, scenario_of
from pipeline.collect.order import CollectorStep

NIGHTLY = bool(os.environ.get("FAILBACK_NIGHTLY"))
"""Read before the tests lose what the person who runs them has set."""
PARTS = 4
"""Of the interleavings, for as many processes: 2,000 in all, and 100,000 in the nightly profile."""
SEEDS = 1_500
"""In which a planted fault must be found."""

EARLY: tuple[CollectorStep, ...] = (
    "clock",
    "tombstones",
    "objects",
    "points",
    "sessions",
    "fence",
    "publish",
    "delete",
)
FAULTS: dict[str, Callable[[], Any]] = {
    "points are read before sessions": lambda: patch("pipeline.collect.collector.COLLECTOR", EARLY),
    "sessions are not read": lambda: patch("pipeline.collect.collector.read_sessions", lambda _repository: []),
    "nobody is fenced": lambda: patch("pipeline.collect.collector.fence", lambda _repository, _key: None),
    "what comes back is not asked when it was forgotten": lambda: patch(
        "pipeline.collect.recall._check_young", lambda _repository, _point, _run: None
    ),
}


def hard(seed: int) -> Scenario:
    """Two collectors, and much time that passes in the middle of everything."""
    return replace(scenario_of(seed), collectors=2, forgets=1, recalls=1, grace=1, trouble=0.0, jump=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_interleaving_loses_a_point(part: int) -> None:
    seen: Counter[str] = Counter()

    @settings(
        max_examples=(100_000 if NIGHTLY else 2_000) // PARTS,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(scenario=SCENARIOS)
    def any_order(scenario: Scenario) -> None:
        run(scenario, seen)

    any_order()
    assert {"writer: done", "writer: killed", "writer: SessionFenced", "collector: done", "unforget: done"} <= set(seen)


SLEEPER = Scenario(
    seed=96,
    writers=(("vm", "a"), ("vm", "b"), ("vm", "b")),
    collectors=1,
    forgets=1,
    recalls=1,
    grace=1,
    sticky=0.9,
    trouble=0.0,
    jump=0.1,
    retries=False,
)
"""A writer sleeps for a day, another host takes over, and then another writer of the sleeper's host."""


@pytest.mark.parametrize(
    "scenario", [scenario_of(362), hard(8), hard(274), SLEEPER], ids=lambda scenario: f"seed {scenario.seed}"
)
def test_what_went_wrong_once_does_not_again(scenario: Scenario) -> None:
    """The first: a collector slept while a point was forgotten and collected. The second and the third: where planted
    faults lose. The last: two writers of a host shared the copy of an index."""
    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_product_is_found(fault: str) -> None:
    with FAULTS[fault]():
        for seed in range(SEEDS):
            try:
                run(hard(seed))
            except Lost:
                return
    pytest.fail(f"nothing was lost in {SEEDS} interleavings")
