"""No order of events on a bucket loses a point: the product's own code, all its requests interleaved and ill-treated."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from model.machine import SCENARIOS, Scenario, run

NIGHTLY = bool(os.environ.get("FAILBACK_NIGHTLY"))
"""Read before the tests lose what the person who runs them has set."""


@pytest.mark.slow
@settings(
    max_examples=25_000 if NIGHTLY else 500,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(scenario=SCENARIOS)
def test_no_interleaving_loses_a_point(scenario: Scenario) -> None:
    run(scenario)
