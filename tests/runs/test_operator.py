"""A check that asks a person, answered from another host."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import RunRefused
from pipeline.runs import conductor as conducting
from pipeline.runs.decide import Ask, Hold
from pipeline.verify.runner import run_checks
from runs.conftest import Disaster

Make = Callable[..., Disaster]
ASKS = {"checks": [{"name": "a person", "hook": "operator", "within": "60s"}]}


@pytest.fixture
def asking(disaster: Make, monkeypatch: pytest.MonkeyPatch) -> Disaster:
    """Its database is looked at by a person."""
    d = disaster(machines={"db": ASKS}, groups=[{"name": "shop", "waves": [["db"]]}])
    monkeypatch.setattr("pipeline.runs.effects.target.run_checks", run_checks)
    monkeypatch.setattr(conducting, "BEAT_SECONDS", 0.1)
    d.begin()
    return d


def conducted(d: Disaster, *, until: Callable[[], bool]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(d.conduct()))
    thread.start()
    end = time.monotonic() + 30
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)
    return thread, found


def asked(d: Disaster) -> Callable[[], bool]:
    return lambda: any("failback run answer" in line for line in list(d.said))


def test_a_yes_from_elsewhere_verifies_the_machine(asking: Disaster) -> None:
    thread, found = conducted(asking, until=asked(asking))
    asking.tell("answer", "db", yes=True, reason="the orders are there")
    thread.join(30)
    assert isinstance(found[0], Ask)
    [check] = asking.state().effect("verify/db").result["checks"]
    assert check["status"] == "passed"
    assert "ada said yes" in check["seen"]
    assert "the orders are there" in check["seen"]


def test_a_no_from_elsewhere_holds_the_run_and_a_retry_asks_anew(asking: Disaster) -> None:
    thread, found = conducted(asking, until=asked(asking))
    asking.tell("answer", "db", yes=False)
    thread.join(30)
    assert isinstance(found[0], Hold)
    assert "ada said no" in found[0].remedy
    asking.said.clear()
    asking.tell("retry")
    thread, found = conducted(asking, until=asked(asking))
    assert asking.state().effect("verify/db").open
    asking.tell("answer", "db", yes=True)
    thread.join(30)
    assert isinstance(found[0], Ask)


def test_an_answer_that_nobody_asks_for_is_refused(asking: Disaster) -> None:
    with pytest.raises(RunRefused, match="nobody asks about db now"):
        asking.tell("answer", "db", yes=True)
    with pytest.raises(RunRefused, match="there is no machine"):
        asking.tell("answer", "mail", yes=True)
