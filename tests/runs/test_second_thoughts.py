"""What people say at an awkward moment, and what is left when there is nothing to go back to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.errors import RunRefused
from pipeline.runs.decide import Ask, Hold, Over, Wait
from pipeline.runs.ownership import advance, current
from pipeline.runs.report import lines, undo
from runs.conftest import MACHINES, Disaster
from runs.test_states import held, on

Make = Callable[..., Disaster]
HOUR = timedelta(hours=1)
ASKED = {"cutover": True, "gate": False, "commit": True, "valid": "1h"}


def stopped(d: Disaster) -> None:
    """The cutover was approved, and all services are stopped."""
    d.begin()
    d.conduct()
    d.tell("approve")
    assert d.killed(1, d.conduct, after=True, only="quiesce web-2")


def nothing_at_home(d: Disaster) -> bool:
    return not any(d.at_home().values()) and all(current(d.repository, m).side == "moving" for m in MACHINES)


def test_a_no_to_an_approval_that_expired_keeps_home_off(disaster: Make) -> None:
    d = disaster(approvals=ASKED)
    stopped(d)
    d.later(2 * HOUR)
    held(d, "approval-expired")
    d.tell("reject", reason="too late in the night")
    hold = held(d, "rejected")
    assert "too late in the night" in hold.reason
    assert "run rollback" in hold.remedy
    assert nothing_at_home(d)
    d.tell("rollback", "shop")
    assert d.conduct() == Over("rolled back")
    assert d.works_at_takeover() == list(MACHINES)


def test_a_no_after_the_yes_counts_until_the_first_machine_is_owned_at_home(disaster: Make) -> None:
    d = disaster(approvals=ASKED)
    stopped(d)
    d.tell("reject", "cutover/shop")
    held(d, "rejected")
    assert nothing_at_home(d)
    d.tell("approve")  # after all: the only question that there is
    assert isinstance(d.conduct(), Ask)
    for verb in ("approve", "reject"):
        with pytest.raises(RunRefused, match="under way or done"):
            d.tell(verb, "cutover/shop")


def test_a_no_is_taken_back_by_the_word_that_is_named_for_it(disaster: Make) -> None:
    d = disaster(approvals=ASKED)
    d.begin()
    d.conduct()
    d.tell("reject")
    assert "approve it after all" in held(d, "rejected").remedy
    d.tell("approve")
    coming = d.conduct()
    assert isinstance(coming, Ask)
    assert coming.what == "commit/shop"


def test_an_answer_about_a_group_that_goes_back_is_refused(disaster: Make) -> None:
    d = disaster()
    d.begin()
    d.conduct()
    d.tell("rollback", "shop", discard=True)
    with pytest.raises(RunRefused, match="asks nothing now"):
        d.tell("approve")
    with pytest.raises(RunRefused, match="shop goes back"):
        d.tell("approve", "commit/shop")


def test_held_by_a_person_says_how_to_go_on(disaster: Make) -> None:
    d = disaster()
    d.begin()
    d.conduct()
    d.tell("hold", reason="lunch")
    assert any(f"run retry {d.run}" in line for line in lines(d.state(), d.plan, None))


# -- the takeover site was given up ------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True])
def test_nothing_is_taken_back_by_itself_to_a_site_that_was_given_up(disaster: Make, late: bool) -> None:
    d = disaster(on_failure="rollback", deadlines={"downtime": "1h"})
    d.begin()
    on(d, "quiesce web-1", lambda: setattr(d.estate, "silent", True))
    held(d, "source-lost")
    d.tell("override", machines=MACHINES, reason="the site burned down")
    if late:
        assert d.killed(2, d.conduct, only="power_on")
        d.later(2 * HOUR)
    else:
        d.bad = {"web-2": "502"}
    coming = d.conduct()
    assert isinstance(coming, Hold), coming
    assert coming.state == ("late" if late else "held")
    assert d.at_home()["db"]
    assert "running nowhere" in undo(d.state(), d.plan)
    d.tell("rollback", "shop")
    assert d.conduct() == Over("rolled back")
    assert "db does not run" in undo(d.state(), d.plan)


# -- a machine that another run has ------------------------------------------------------------------------------------


def other(d: Disaster, machine: str) -> None:
    """Another run brings it home."""
    epoch = current(d.repository, machine)
    for side in ("moving", "home-provisional", "home-committed"):
        epoch = advance(d.repository, epoch, side, run="other", proof={"by": "it", "seen": "off"})  # type: ignore[arg-type]


def test_a_machine_that_another_run_has_is_found_before_anything_is_touched(disaster: Make) -> None:
    d = disaster()
    d.begin()
    other(d, "web-1")
    assert "home-committed, by run other" in held(d, "held").reason
    d.tell("cancel")
    assert d.conduct() == Over("cancelled")


def test_a_run_that_lost_a_machine_to_another_one_can_be_ended(disaster: Make) -> None:
    d = disaster()
    d.begin()
    on(d, "put leases/db", lambda: other(d, "web-1"))
    assert "claim/web-1" in held(d, "held").reason
    d.tell("rollback", "shop")
    assert d.conduct() == Over("rolled back")
    assert d.works_at_takeover() == list(MACHINES)
    assert current(d.repository, "web-1").run == "other"
    assert current(d.repository, "db").side == "takeover"
    assert "web-1 is home-committed, by run other" in undo(d.state(), d.plan)


def test_a_commit_that_is_half_done_says_which_half(disaster: Make) -> None:
    d = disaster()
    d.begin()
    d.conduct()
    d.tell("approve")
    assert d.killed(2, d.conduct, only="put leases/")
    assert "home for good, but web-1, web-2: the commit goes on" in undo(d.state(), d.plan)
    assert d.conduct() == Over("committed")


# -- words that are printed can be said --------------------------------------------------------------------------------


def test_while_one_group_is_home_for_good_the_undo_line_says_how_the_other_goes_back(disaster: Make) -> None:
    d = disaster(groups=[{"name": "data", "waves": [["db"]]}, {"name": "web", "waves": [["web-1", "web-2"]]}])
    d.begin()
    d.conduct()
    assert f"run rollback {d.run} --group data --discard" in undo(d.state(), d.plan)
    d.tell("approve")
    asked = d.conduct()
    assert isinstance(asked, Ask)
    assert asked.what == "commit/web"
    said = undo(d.state(), d.plan)
    assert "no way back for data" in said
    assert f"run rollback {d.run} --group web --discard" in said


def test_a_no_to_the_commit_names_the_way_back_that_is_taken(disaster: Make) -> None:
    d = disaster()
    d.begin()
    d.conduct()
    d.tell("reject")
    assert f"run rollback {d.run} --discard" in held(d, "rejected").remedy
    d.tell("rollback", "shop", discard=True)
    assert d.conduct() == Over("rolled back")


def test_the_time_until_a_commit_begins_when_the_gate_is_open_and_not_when_it_was_tried(
    disaster: Make, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    step = {"name": "dns", "kind": "command", "settings": {"open": ["test", "-e", str(ready)], "close": ["true"]}}
    d = disaster(
        approvals={"cutover": False, "gate": False, "commit": False},
        commit={"after": "1h", "green": 1, "every": "1min"},
        groups=[{"name": "shop", "waves": [["db"], ["web-1", "web-2"]], "traffic": [step]}],
    )
    d.begin()
    assert "open/shop/dns" in held(d, "held").reason
    d.later(2 * HOUR)
    ready.touch()
    d.tell("retry")
    assert isinstance(d.conduct(wait=False), Wait)
    assert not any(d.state().began(f"commit/{m}") for m in MACHINES)
