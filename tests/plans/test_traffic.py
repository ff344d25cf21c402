"""Traffic steps let users in and keep them out, and say which it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import TargetError, UsageError
from pipeline.home.control import Controller
from pipeline.plans.agree import traffic_of
from pipeline.plans.model import TrafficStep
from pipeline.plans.traffic import Gate, Way
from pipeline.target import Build, Importer


def step(kind: str, **settings: Any) -> Gate[Any]:
    return traffic_of(TrafficStep(name="test", kind=kind, settings=settings))


def nobody(machine: str) -> tuple[Importer, Build]:
    raise TargetError(f"{machine} is not there")


def way(at_home: Callable[[str], tuple[Importer, Build]] = nobody) -> Way:
    variables = {"FAILBACK_RUN": "shop-1", "FAILBACK_GROUP": "shop", "FAILBACK_EPOCH": "4", "FAILBACK_MACHINES": "db"}
    return Way("shop", "shop-1", Controller(), at_home, variables)


@pytest.fixture
def switch(tmp_path: Path) -> str:
    """A program with one argument: what it is to do with a file that stands for the world."""
    path = tmp_path / "switch"
    path.write_text(
        f"""#!/bin/sh
world={tmp_path}/world
case $1 in
open) echo open >$world; echo "opened for $FAILBACK_GROUP ($FAILBACK_RUN, $FAILBACK_EPOCH)";;
close) rm -f $world; echo closed;;
observe) if [ -e $world ]; then echo open; else echo closed; fi;;
*) echo "what is $1?" >&2; exit 9;;
esac
"""
    )
    path.chmod(0o755)
    return str(path)


def test_a_program_opens_closes_and_says_which(switch: str) -> None:
    gate = step("command", open=[switch, "open"], close=[switch, "close"], observe=[switch, "observe"])
    assert gate.observe(way()) == "closed"
    for _again in range(2):
        assert "opened for shop (shop-1, 4)" in gate.open(way())
        assert gate.observe(way()) == "open"
    for _again in range(2):
        gate.close(way())
        assert gate.observe(way()) == "closed"


def test_a_program_that_fails_has_not_opened(switch: str) -> None:
    gate = step("command", open=[switch, "xyz"], close=[switch, "close"], observe=[switch, "xyz"])
    with pytest.raises(TargetError, match=r"ended with 9: what is xyz\?"):
        gate.open(way())
    assert gate.observe(way()) == "unknown"


def test_without_a_program_that_looks_nobody_can_say(switch: str) -> None:
    gate = step("command", open=[switch, "open"], close=[switch, "close"])
    gate.open(way())
    assert gate.observe(way()) == "unknown"
    assert step("command", open=["x"], close=["x"], observe=["echo", "perhaps"]).observe(way()) == "unknown"


def test_both_ways_have_to_be_said() -> None:
    with pytest.raises(UsageError, match=r"settings\.close is missing"):
        step("command", open=["true"])
    with pytest.raises(UsageError, match=r"settings\.open: "):
        step("command", open=[], close=["true"])
