"""A run from its first export to the commit, and back, with every outcome that its plan and people may want."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.runs.decide import Ask, Hold, Over
from pipeline.runs.ownership import current
from runs.conftest import MACHINES, Disaster

Make = Callable[..., Disaster]


def test_a_group_comes_home_and_nothing_that_was_acknowledged_is_lost(disaster: Make) -> None:
    d = disaster()
    d.begin()
    asked = d.conduct()
    assert isinstance(asked, Ask)
    assert asked.what == "commit/shop"
    assert d.at_home() == dict.fromkeys(MACHINES, True)
    assert d.works_at_takeover() == []
    d.tell("approve")
    assert d.conduct() == Over("committed")
    for name in MACHINES:
        assert d.restored(name) == d.estate.machines[name].acknowledged > 0
        assert current(d.repository, name).side == "home-committed"
        assert d.estate.machines[name].retired
    assert d.double == []


def test_machines_stop_in_the_reverse_of_the_order_in_which_they_boot(disaster: Make) -> None:
    d = disaster()
    d.begin()
    d.conduct()
    verbs = [call for call in d.estate.calls if call.split()[0] in ("quiesce", "stop")]
    assert verbs.index("quiesce web-2") < verbs.index("quiesce db")
    assert verbs.index("stop web-1") < verbs.index("stop db")


def test_a_failing_check_holds_and_a_rollback_brings_the_takeover_side_back(disaster: Make) -> None:
    d = disaster()
    d.bad = {"web-1": "502"}
    d.begin()
    held = d.conduct()
    assert isinstance(held, Hold)
    assert "502" in held.remedy
    assert d.works_at_takeover() == []
    d.tell("rollback", "shop")
    assert d.conduct() == Over("rolled back")
    assert d.works_at_takeover() == list(MACHINES)
    assert not any(d.at_home().values())
    assert all(current(d.repository, name).side == "takeover" for name in MACHINES)
    assert d.double == []


def test_a_plan_may_roll_back_by_itself(disaster: Make) -> None:
    d = disaster(on_failure="rollback")
    d.bad = {"db": "no answer"}
    d.begin()
    assert d.conduct() == Over("rolled back")
    assert d.works_at_takeover() == list(MACHINES)


def test_after_a_failure_in_the_second_wave_the_rest_comes_home_by_an_approved_split(disaster: Make) -> None:
    d = disaster()
    d.bad = {"web-2": "502"}
    d.begin()
    assert isinstance(d.conduct(), Hold)
    d.tell("split", machines=("web-2",))
    assert isinstance(d.conduct(), Ask)
    assert d.works_at_takeover() == ["web-2"]
    assert {m for m, on in d.at_home().items() if on} == {"db", "web-1"}
    d.tell("approve")
    assert d.conduct() == Over("partly committed")
    assert current(d.repository, "web-2").side == "takeover"
    assert d.double == []


def test_a_split_after_the_set_was_made_and_its_answer_lost_finds_the_same_set(disaster: Make) -> None:
    d = disaster()
    d.begin()
    assert d.killed(1, d.conduct, after=True, only="put sets/")
    d.tell("split", machines=("web-2",))
    assert isinstance(d.conduct(), Ask)
    assert d.works_at_takeover() == ["web-2"]


def test_a_look_while_the_gate_is_open_knows_what_the_firmware_showed(disaster: Make) -> None:
    d = disaster(
        approvals={"cutover": False, "gate": False, "commit": False}, commit={"after": 1, "green": 1, "every": 1}
    )
    d.paused = lambda _seconds: time.sleep(0.05)
    d.begin()
    assert d.conduct() == Over("committed")
    first, *others = [look for look in d.looked if look.machine == "db"]
    assert others
    assert first.fresh
    assert not any(look.fresh for look in others)
    assert {look.artifacts for look in others} == {first.artifacts}
