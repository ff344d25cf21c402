"""The conductor is killed before every call to the store, the takeover site and the home platform, and after each of
them when its answer was lost: another one goes on, and what is there at the end is what one run alone would leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.runs.decide import Ask, Hold, Next, Over
from pipeline.runs.entries import Intended
from pipeline.runs.journal import Journal
from pipeline.runs.ownership import current
from runs.conftest import MACHINES, Disaster

Make = Callable[..., Disaster]
CALLS = ("put runs/", "put leases/", "put sets/", "quiesce", "reading", "exported", "stop", "prove", "lock", "resume",
         "retire", "create_", "layer_", "power_on", "power_off", "ask_to", "delete_", "tag_")  # fmt: skip
"""By the beginnings of their names: what has an effect that others see."""


def to_the_end(d: Disaster) -> Next:
    """With a person who approves what is asked."""
    coming = d.conduct()
    while isinstance(coming, Ask):
        d.tell("approve")
        coming = d.conduct()
    return coming


def back(d: Disaster) -> Next:
    """With a person who goes back when it is held."""
    coming = d.conduct()
    if isinstance(coming, Hold):
        d.tell("rollback", "shop")
        coming = d.conduct()
    return coming


def check_home(d: Disaster) -> None:
    assert d.double == []
    assert d.at_home() == dict.fromkeys(MACHINES, True)
    assert d.works_at_takeover() == []
    assert len(d.platform.find_machines()) == len(MACHINES)
    assert all(machine.starts == 1 for machine in d.platform.machines.values())
    assert len(d.platform.find_disks(role="stage")) == len(d.platform.find_disks(role="layer")) == len(MACHINES)
    for name in MACHINES:
        assert d.restored(name) == d.estate.machines[name].acknowledged > 0
        chain = current(d.repository, name)
        assert (chain.number, chain.side) == (3, "home-committed")


def check_back(d: Disaster) -> None:
    assert d.double == []
    assert d.works_at_takeover() == list(MACHINES)
    assert not d.platform.find_machines()
    assert not d.platform.find_disks(role="layer")
    for name in MACHINES:
        assert d.estate.machines[name].starts <= 2
        assert d.estate.machines[name].acknowledged == d.estate.machines[name].written()
        assert current(d.repository, name).side == "takeover"


def sweep(
    disaster: Make, call: str, way: Callable[[Disaster], Next], check: Callable[[Disaster], None], **how: Any
) -> int:
    """Kill at the first, second, ... such call, until there is none; the number of kills."""
    kills = 0
    for after in (False, True):
        nth = 1
        while True:
            d = disaster()
            d.bad = dict(how.get("bad", {}))
            d.begin()
            killed = d.killed(nth, lambda d=d: way(d), after=after, only=call)  # type: ignore[misc]
            if killed:
                way(d)
                kills += 1
            assert isinstance(d.state().outcome, str), d.state().stand
            check(d)
            if not killed:
                break
            nth += how.get("stride", 1)
    return kills


@pytest.mark.parametrize("call", CALLS)
def test_a_kill_on_the_way_home_changes_nothing(disaster: Make, call: str) -> None:
    stride = 9 if call == "put runs/" else 2
    sweep(disaster, call, to_the_end, check_home, stride=stride)


@pytest.mark.parametrize("call", CALLS)
def test_a_kill_on_the_way_back_changes_nothing(disaster: Make, call: str) -> None:
    stride = 9 if call == "put runs/" else 3
    sweep(disaster, call, back, check_back, stride=stride, bad={"web-2": "502"})


def test_the_sweep_reaches_every_verb_of_both_ways(disaster: Make) -> None:
    seen = set()
    for way, bad in ((to_the_end, {}), (back, {"web-2": "502"})):
        d = disaster()
        d.bad = bad
        d.begin()
        assert isinstance(way(d), Over)
        journal = Journal(d.repository, d.run)
        seen |= {e.body.effect.split("/")[0] for e in journal.read() if isinstance(e.body, Intended)}
    assert seen >= {"export", "stage", "claim", "quiesce", "final", "set", "stop", "prove", "lock", "refresh", "own"}
    assert seen >= {"boot", "verify", "clock", "commit", "retire", "halt", "return", "restart"}
