"""When disks at home follow once more before a cutover, by what a journal says of the rounds before."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.plans.model import Plan
from pipeline.runs.decide import Do, Hold, Look, decide
from pipeline.runs.entries import Ended, Entry, Intended, Met, Started, Waits
from pipeline.runs.fold import RunState, fold, step
from pipeline.runs.line import Abilities
from runs.conftest import DOCUMENT, MACHINES
from runs.test_before_cutover import GO

START = datetime(2026, 3, 1, tzinfo=UTC)


def ready(*minutes: int, gap: int = 0) -> tuple[RunState, datetime]:
    """A run before its cutover, whose export and stage at the beginning, and each later round, took so many minutes;
    in the midst of the last one nobody worked on it for `gap`."""
    found: list[Entry] = []
    now = START

    def said(body: Any) -> None:
        found.append(Entry(len(found) + 1, "", now, "ada", body))

    def did(name: str, took: int) -> None:
        nonlocal now
        said(Intended(conductor=0, effect=name, attempt=1))
        now += timedelta(minutes=took)
        said(Ended(conductor=0, effect=name, attempt=1, done=True))

    said(Started(plan="shop", version=1, digest=""))
    said(Met(conductor=0, answers={}))
    for verb in ("preflight", "export", "stage"):
        for m in MACHINES:
            did(f"{verb}/{m}", minutes[0] if (verb, m) == ("stage", "db") else 0)
    for number, took in enumerate(minutes[1:], 1):
        for m in MACHINES:
            did(f"catchup/{m}/{number}", took if m == "db" else 0)
            now += timedelta(minutes=gap if (number, m) == (len(minutes) - 1, "web-1") else 0)
    return fold("shop-20260301-000000-abcdef", found), now


def rounds(*minutes: int, idle: int = 0, gap: int = 0) -> object:
    """What is decided so many minutes later."""
    state, now = ready(*minutes, gap=gap)
    return decide(state, Plan.model_validate(DOCUMENT), Abilities(), now + timedelta(minutes=idle))


def caught(number: int) -> Do:
    return Do(tuple(f"catchup/{m}/{number}" for m in MACHINES))


CLAIM = Do(tuple(f"claim/{m}" for m in MACHINES))


def test_it_follows_in_ever_shorter_rounds_as_long_as_they_become_shorter() -> None:
    assert rounds(10) == CLAIM
    assert rounds(10, idle=14) == CLAIM
    assert rounds(10, idle=16) == caught(1)
    assert rounds(480) == caught(1)
    assert rounds(480, 60) == caught(2)
    assert rounds(480, 60, 12) == CLAIM
    assert rounds(480, 400) == CLAIM  # it writes as fast as it is read: more rounds bring nothing
    assert rounds(480, 400, idle=16) == caught(2)
    assert rounds(480, 60, 40) == CLAIM
    assert rounds(10, 5, gap=600) == caught(2)  # db is as it was ten hours ago
    assert rounds(10, 5, 5, gap=600) == caught(3)


def test_by_a_clock_that_is_not_to_be_believed_no_window_opens_and_nothing_is_late() -> None:
    state, now = ready(480)
    waits = Plan.model_validate({**DOCUMENT, "conditions": [GO]})
    hold = decide(state, waits, Abilities(), now, suspect="it jumped")
    assert isinstance(hold, Hold)
    assert (hold.state, hold.reason) == ("clock-suspect", "it jumped")
    state.accepted.add("clock-suspect")
    assert decide(state, waits, Abilities(), now, suspect="it jumped") == caught(1)
    assert decide(ready(480)[0], Plan.model_validate(DOCUMENT), Abilities(), now, suspect="it jumped") == CLAIM


@pytest.mark.parametrize("waited", [False, True])
def test_looks_that_take_longer_than_disks_may_be_behind_end_none_the_less(waited: bool) -> None:
    """They are caught up with once more where it was waited in between, not because of how long it took to look."""
    state, now = ready(10, 1)
    plan = Plan.model_validate({**DOCUMENT, "conditions": [GO], "limits": {"catch_up": "1min"}})
    assert decide(state, plan, Abilities(), now) == Look("shop")
    if waited:
        step(state, Entry(state.number + 1, "", now, "ada", Waits(conductor=0, answers={}, group="shop")))
    now += timedelta(minutes=2)
    step(state, Entry(state.number + 1, "", now, "ada", Met(conductor=0, answers={}, group="shop")))
    assert decide(state, plan, Abilities(), now) == (caught(2) if waited else CLAIM)
