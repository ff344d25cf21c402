"""A run from its first export to the commit, and back, with every outcome that its plan and people may want."""

from __future__ import annotations

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
