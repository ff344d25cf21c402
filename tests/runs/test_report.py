"""What a run says of itself."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.home.control import Controller
from pipeline.home.site import Ground
from pipeline.runs.report import lines, undo
from pipeline.runs.written import at_stake, written_at_home
from runs.conftest import MACHINES, Disaster

Make = Callable[..., Disaster]


def ground(d: Disaster) -> Ground:
    return Ground(d.repository, d.root / d.host, Controller())


def test_the_undo_line_says_how_much_was_written_at_home(disaster: Make) -> None:
    d = disaster()
    d.begin()
    assert written_at_home(ground(d), d.state(), d.plan) == {}
    d.conduct()
    found = written_at_home(ground(d), d.state(), d.plan)
    assert set(found) == set(MACHINES)
    assert all(found.values()), "a guest that starts writes"
    said = undo(d.state(), d.plan, {"db": 5 << 20, "web-1": 1 << 20})
    assert "since" in said
    assert "6.00 MiB written there since" in said
    assert said in "\n".join(lines(d.state(), d.plan, None, {"db": 5 << 20, "web-1": 1 << 20}))


def test_nothing_is_asked_before_the_gate_nor_after_the_commit(disaster: Make) -> None:
    d = disaster(approvals={"cutover": False, "gate": False, "commit": True})
    d.bad = {"web-1": "502"}
    d.begin()
    d.conduct()
    assert at_stake(d.state(), d.plan) == []
    d.bad = {}
    d.tell("retry")
    d.conduct()
    assert at_stake(d.state(), d.plan) == list(MACHINES)
    d.tell("approve")
    d.conduct()
    assert at_stake(d.state(), d.plan) == []


def test_a_target_that_cannot_say_is_left_out(disaster: Make) -> None:
    d = disaster()
    d.begin()
    d.conduct()
    d.platform.machines.clear()
    d.platform.disks.clear()
    assert written_at_home(ground(d), d.state(), d.plan) == {}
    assert "written there" not in undo(d.state(), d.plan, {})
