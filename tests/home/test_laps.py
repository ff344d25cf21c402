"""Seconds are counted once: what is known of a step in detail is not counted in it again."""

from __future__ import annotations

import time

import pytest

from pipeline import laps as module
from pipeline.laps import Laps, shown


def test_steps_are_what_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    laps = Laps(since=98.0)
    laps.lap("start")
    now = 110.0
    laps.lap("stage", {"write": 6.0, "flush": 1.5})
    now = 111.0
    laps.lap("stage", {"write": 3.0})
    assert laps.steps == {"start": 2.0, "write": 9.0, "flush": 1.5, "stage": 2.5}
    assert list(laps.steps) == ["start", "write", "flush", "stage"]
    assert shown({**laps.steps, "close": 0.001}) == "start 2.0 s, write 9.0 s, flush 1.5 s, stage 2.5 s"


def test_without_a_beginning_it_begins_now() -> None:
    laps = Laps()
    time.sleep(0.01)
    laps.lap("step")
    assert 0.01 <= laps.steps["step"] < 5
