"""What happens between a person's yes and a group's downtime: conditions of the cutover are waited for, and disks at
home that have fallen behind follow once more."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from manifests.names import run_entry_key
from pipeline.catalogue import latest, points
from pipeline.home.control import Controller
from pipeline.home.site import Ground
from pipeline.runs.crew import source_of
from pipeline.runs.decide import Ask, Look, Over
from pipeline.runs.entries import Intended, Met, Waits
from pipeline.runs.journal import Journal
from pipeline.runs.report import headline, lines
from pipeline.runs.wake import Wakes
from pipeline.sources.export import export_from
from runs.conftest import MACHINES, Disaster
from runs.test_killed import check_home
from runs.test_states import HOUR, entries, held, on

Make = Callable[..., Disaster]
GO: dict[str, Any] = {"name": "night", "kind": "flag", "when": "cutover", "settings": {"flag": "go"}}
ASKED = {"cutover": True, "commit": True}


def file_there(path: Path) -> dict[str, Any]:
    return {"name": "door", "kind": "command", "when": "cutover", "settings": {"argv": ["test", "-e", str(path)]}}


def machine_lines(d: Disaster) -> str:
    return "\n".join(lines(d.state(), d.plan, None))


def test_all_is_made_ready_and_only_then_the_cutover_waits(disaster: Make) -> None:
    d = disaster(conditions=[GO], approvals=ASKED)
    d.begin()
    asked = d.conduct(wait=False)
    assert isinstance(asked, Ask)  # a person says yes in the daytime
    d.tell("approve")
    coming = d.conduct(wait=False)
    assert coming == Look("shop")
    assert all(d.state().done(f"stage/{m}") for m in MACHINES)
    assert d.works_at_takeover() == list(MACHINES)
    assert headline(d.state()) == "waits for the conditions of a cutover: shop"
    assert any("looks at the conditions again" in line for line in lines(d.state(), d.plan, coming))
    assert [w.group for w in entries(d, Waits)] == ["shop"]
    d.tell("flag", "go")
    assert isinstance(d.conduct(), Ask)
    assert [(m.group, list(m.answers)) for m in entries(d, Met)] == [("", []), ("shop", ["night"])]
    assert headline(d.state()) == "asks for approval: commit/shop"
    d.tell("approve")
    assert d.conduct() == Over("committed")
    check_home(d)


def test_conditions_of_the_beginning_are_others(disaster: Make) -> None:
    d = disaster(conditions=[GO, {"name": "boss", "kind": "flag", "settings": {"flag": "boss"}}])
    d.begin()
    assert d.conduct(wait=False) == Look()
    d.tell("flag", "boss")
    assert d.conduct(wait=False) == Look("shop")
    assert d.state().met == {"boss": "holds: flag boss is set"}


def test_one_that_waits_before_its_cutover_is_looked_at_without_an_entry(disaster: Make) -> None:
    d = disaster(conditions=[GO])
    d.begin()
    assert d.conductor().only_waits() is None  # nobody has begun to wait
    d.conduct(wait=False)
    number = d.state().number
    for _ in range(3):
        conductor = d.conductor()
        assert conductor.only_waits() == Look("shop")
        assert conductor.seen["night"].startswith("waiting: a person has to set flag go")
    assert d.state().number == number
    d.tell("flag", "go")
    assert d.conductor().only_waits() is None


def test_a_service_that_looks_after_it_goes_on_when_they_hold(disaster: Make) -> None:
    d = disaster(conditions=[GO])
    d.begin()
    d.conduct(wait=False)
    number = d.state().number
    wakes = Wakes(d.repository, lambda _plan, _control: d.conductor().crew.ground)
    for _ in range(2):
        [run] = wakes.due()
        wakes.work(run)
        wakes._watched[run].due = 0.0
    assert d.state().number == number
    d.tell("flag", "go")
    [run] = wakes.due()
    wakes.work(run)
    assert headline(d.state()) == "asks for approval: commit/shop"


def test_a_no_while_it_waits_counts_and_so_does_an_approval_that_expires(disaster: Make) -> None:
    d = disaster(conditions=[GO], approvals={**ASKED, "valid": "5h"})
    d.begin()
    d.conduct(wait=False)
    d.tell("approve")
    assert d.conduct(wait=False) == Look("shop")
    d.tell("reject", "cutover/shop")
    held(d, "rejected")
    d.tell("approve", "cutover/shop")
    assert d.conduct(wait=False) == Look("shop")
    d.later(6 * HOUR)
    assert d.conductor().only_waits() is None
    asked = d.conduct(wait=False)
    assert isinstance(asked, Ask)
    assert asked.state == "approval-expired"
    assert d.works_at_takeover() == list(MACHINES)


def test_waiting_is_counted_from_its_own_beginning(disaster: Make) -> None:
    d = disaster(conditions=[GO], approvals={**ASKED, "valid": "30h"}, deadlines={"conditions": "2h"})
    d.begin()
    d.conduct(wait=False)
    d.later(5 * HOUR)
    d.tell("approve")
    assert d.conduct(wait=False) == Look("shop")
    d.later(HOUR)
    assert d.conduct(wait=False) == Look("shop")
    d.later(2 * HOUR)
    assert "as long as the plan allows" in held(d, "waiting").reason
    d.tell("retry")
    assert d.conduct(wait=False) == Look("shop")


def test_each_group_waits_by_itself(disaster: Make) -> None:
    d = disaster(
        conditions=[GO],
        groups=[{"name": "data", "waves": [["db"]]}, {"name": "web", "waves": [["web-1", "web-2"]], "after": ["data"]}],
    )
    d.begin()
    assert d.conduct(wait=False) == Look("data")
    d.tell("flag", "go")
    assert isinstance(d.conduct(), Ask)
    d.tell("approve")
    assert isinstance(d.conduct(), Ask)
    assert [m.group for m in entries(d, Met)] == ["", "data", "web"]


def test_what_waited_is_caught_up_with_before_the_downtime_begins(disaster: Make) -> None:
    d = disaster(conditions=[GO], approvals={**ASKED, "valid": "30h"})
    d.begin()
    d.conduct(wait=False)
    d.tell("approve")
    d.conduct(wait=False)
    d.later(9 * HOUR)
    d.tell("flag", "go")
    began: list[str] = []
    on(d, "quiesce", lambda: began.append(machine_lines(d)))
    assert isinstance(d.conduct(), Ask)
    done = [e.effect for e in entries(d, Intended)]
    assert [n for n in done if n.startswith("catchup/")] == [f"catchup/{m}/1" for m in MACHINES]
    assert max(map(done.index, (f"catchup/{m}/1" for m in MACHINES))) < done.index("claim/db")
    for name in MACHINES:
        kept = list(points(d.repository, name))
        assert [p.manifest.tags["failback-step"] for p in kept] == ["export", "catch-up-1", "final"]
        assert d.state().staged(name).result["sequence"] == kept[1].manifest.sequence
    assert "caught up  (db@2)" in began[0]
    d.tell("approve")
    assert d.conduct() == Over("committed")
    check_home(d)


def test_what_was_staged_just_now_is_not_and_neither_is_it_where_the_plan_says_never(disaster: Make) -> None:
    d = disaster(approvals=ASKED)
    d.begin()
    d.conduct()
    d.later(timedelta(minutes=14))
    d.tell("approve")
    d.conduct()
    assert not d.state().catch_ups("db")
    d = disaster(approvals=ASKED, limits={"parallel": 1, "catch_up": None})
    d.begin()
    d.conduct()
    d.later(7 * HOUR)
    d.tell("approve")
    d.conduct()
    assert not d.state().catch_ups("db")
    assert d.state().done("final/db")


def test_conditions_that_held_before_it_caught_up_have_to_hold_after_it_too(disaster: Make, tmp_path: Path) -> None:
    door = tmp_path / "open"
    door.touch()
    d = disaster(conditions=[file_there(door)], approvals=ASKED)
    d.begin()
    d.conduct()
    d.later(HOUR)
    d.tell("approve")
    on(d, "reading", door.unlink)
    assert d.conduct(wait=False) == Look("shop")
    assert d.state().catch_ups("web-2")[0].done
    assert d.works_at_takeover() == list(MACHINES)
    door.touch()
    assert isinstance(d.conduct(), Ask)
    assert d.state().done("boot/db")


def test_conditions_that_held_long_ago_have_to_hold_now(disaster: Make, tmp_path: Path) -> None:
    """Its conductor dies when it has seen them hold."""
    door = tmp_path / "open"
    door.touch()
    d = disaster(conditions=[file_there(door)])
    d.begin()
    d.conduct()
    [met] = [e for e in Journal(d.repository, d.run).read() if isinstance(e.body, Met) and e.body.group]
    d = disaster(conditions=[file_there(door)])
    d.begin()
    assert d.killed(1, d.conduct, only=f"put {run_entry_key(d.run, met.number)}", after=True)
    assert [m.group for m in entries(d, Met)] == ["", "shop"]
    d.later(timedelta(minutes=2))
    door.unlink()
    assert d.conduct(wait=False) == Look("shop")
    assert d.works_at_takeover() == list(MACHINES)


def test_a_claim_is_no_downtime_and_what_was_quiesced_is_ended_whatever_holds(disaster: Make, tmp_path: Path) -> None:
    door = tmp_path / "open"
    for call, ends in (("put leases/", False), ("quiesce", True)):
        door.touch()
        d = disaster(conditions=[file_there(door)], approvals={**ASKED, "valid": "30h"})
        d.begin()
        d.conduct()
        d.tell("approve")
        assert d.killed(1, d.conduct, only=call)
        door.unlink()
        d.later(12 * HOUR)
        coming = d.conduct(wait=False)
        if ends:
            assert isinstance(coming, Ask)
            assert d.state().done("boot/db")
        else:
            assert coming == Look("shop")
            assert d.works_at_takeover() == list(MACHINES)
            assert d.state().catch_ups("db")[-1].done
            d.later(20 * HOUR)
            assert held(d, "approval-expired")


def test_what_looks_at_the_clock_is_looked_at_last(disaster: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    times = [f"{now:%H:%M}-{now + timedelta(minutes=5):%H:%M}"]
    window = {"name": "night", "kind": "window", "when": "cutover", "settings": {"zone": "UTC", "times": times}}
    slow = {"name": "slow", "kind": "command", "when": "cutover", "settings": {"argv": ["true"]}}
    d = disaster(conditions=[window, slow])
    d.begin()
    with monkeypatch.context() as patch:
        ticks = itertools.count(step=600)
        patch.setattr("pipeline.runs.crew._boottime", lambda: next(ticks))
        assert d.conduct(wait=False) == Look("shop")
    assert isinstance(d.conduct(), Ask)


@pytest.mark.parametrize("call", ["put runs/", "put leases/", "reading", "exported", "create_"])
def test_killed_on_the_way_it_comes_home_once(disaster: Make, call: str) -> None:
    """At every such call, before it and after its answer was lost."""

    def way(d: Disaster) -> None:
        coming = d.conduct(wait=False)
        while coming != Over("committed"):
            if isinstance(coming, Ask):
                d.later(HOUR)
                d.tell("approve")
            else:
                assert coming == Look("shop"), coming
                d.tell("flag", "go")
            coming = d.conduct(wait=False)

    for after in (False, True):
        nth = 1
        while True:
            d = disaster(conditions=[GO], approvals={**ASKED, "valid": "30h"})
            d.begin()
            killed = d.killed(nth, lambda d=d: way(d), after=after, only=call)  # type: ignore[misc]
            if killed:
                way(d)
            assert all(len(d.state().catch_ups(m)) >= 1 for m in MACHINES)
            check_home(d)
            if not killed:
                break
            nth += 9 if call == "put runs/" else 3
    assert nth > 1


def test_one_that_fails_to_catch_up_is_held_with_nothing_touched(disaster: Make) -> None:
    d = disaster(approvals=ASKED, on_failure="rollback")
    d.begin()
    d.conduct()
    d.later(HOUR)
    d.tell("approve")
    d.estate.silent = True
    stand = held(d, "source-lost")
    assert "catchup/db/1" in stand.reason
    assert "run override" in stand.remedy
    assert d.state().back == {}
    d.estate.silent = False
    d.tell("retry")
    assert isinstance(d.conduct(), Ask)
    assert d.state().done("boot/db")


def test_a_round_that_failed_is_told_though_conditions_do_not_hold(disaster: Make, tmp_path: Path) -> None:
    door = tmp_path / "open"
    door.touch()
    d = disaster(conditions=[file_there(door)], approvals={**ASKED, "valid": "30h"})
    d.begin()
    d.conduct()
    d.later(HOUR)
    d.tell("approve")
    on(d, "reading", lambda: (door.unlink(), setattr(d.estate, "silent", True)))
    assert "catchup/" in held(d, "source-lost").reason


def test_while_it_waits_its_disks_follow_and_a_short_window_is_enough(disaster: Make, tmp_path: Path) -> None:
    door = tmp_path / "open"
    condition = file_there(door) | {"within": "100h"}
    d = disaster(conditions=[condition], approvals={**ASKED, "cutover": False})
    d.begin()
    assert d.conduct(wait=False) == Look("shop")
    for _ in range(10):
        d.later(timedelta(minutes=40))
        conductor = d.conductor()
        if conductor.only_waits() is None:
            assert conductor.conduct(wait=False) == Look("shop")
    assert len(d.state().catch_ups("db")) == 5  # after an hour, when somebody looks: each second time
    # A window that closes while the last round is made: what is waited for is the same wait.
    since = d.state().awaited["shop"]
    d.later(timedelta(minutes=40))
    door.touch()
    on(d, "reading", door.unlink)
    assert d.conduct(wait=False) == Look("shop")
    assert d.state().awaited["shop"] == since
    d.later(101 * HOUR)
    assert "door was waited for" in held(d, "waiting").reason


def test_conditions_that_hold_only_when_it_caught_up_are_met(disaster: Make, tmp_path: Path) -> None:
    door = tmp_path / "open"
    d = disaster(conditions=[file_there(door)], approvals={**ASKED, "valid": "30h"})
    d.begin()
    d.conduct()
    d.later(2 * HOUR)
    d.tell("approve")
    on(d, "reading", door.touch)
    assert isinstance(d.conduct(wait=False), Ask)
    assert d.state().done("boot/db")


def test_a_machine_that_something_else_exports_may_have_its_last_point_already(disaster: Make) -> None:
    unread = {"source": {"abilities": {"reads": False}}}
    d = disaster(approvals={**ASKED, "valid": "30h"}, machines={"db": unread, "web-1": {}, "web-2": {}})

    def exported(*, final: bool) -> None:
        ground = Ground(d.repository, d.root / "elsewhere", Controller(), parallel=2)
        source, parent = source_of(ground, d.plan, Controller()), latest(d.repository, "db")
        export_from(ground, source, "db", {"abilities": {}}, parent=parent, final=final, tags={}, memory=ground.memory)

    exported(final=False)
    d.begin()
    d.conduct()
    d.later(2 * HOUR)
    d.estate.machines["db"].power = "off"
    exported(final=True)
    d.tell("approve")
    assert isinstance(d.conduct(), Ask)
    assert d.state().staged("db").result["sequence"] == d.state().effect("final/db").result["sequence"] == 2


# -- giving up ---------------------------------------------------------------------------------------------------------


def test_a_second_group_that_waits_too_long_can_be_given_up(disaster: Make, tmp_path: Path) -> None:
    door = tmp_path / "open"
    door.touch()
    groups = [{"name": "data", "waves": [["db"]]}, {"name": "web", "waves": [["web-1", "web-2"]], "after": ["data"]}]
    d = disaster(conditions=[file_there(door) | {"within": "1h"}], groups=groups)
    d.begin()
    assert isinstance(d.conduct(), Ask)
    door.unlink()
    d.tell("approve")
    assert d.conduct(wait=False) == Look("web")
    d.later(2 * HOUR)
    assert f"`failback run rollback {d.run} --group web` gives up" in str(held(d, "waiting").remedy)
    d.tell("rollback", "web")
    assert d.conduct() == Over("partly committed")
    assert d.works_at_takeover() == ["web-1", "web-2"]


def test_how_long_it_may_wait_is_counted_anew_after_a_person_was_waited_for(disaster: Make) -> None:
    boss = {"name": "boss", "kind": "flag", "within": "1h", "settings": {"flag": "boss"}}
    d = disaster(conditions=[boss, GO | {"within": "12h"}], approvals=ASKED)
    d.begin()
    d.conduct(wait=False)
    d.later(2 * HOUR)
    held(d, "waiting")
    d.tell("retry")
    d.tell("flag", "boss")
    assert isinstance(d.conduct(wait=False), Ask)
    d.tell("approve")
    assert d.conduct(wait=False) == Look("shop")
    d.later(9 * HOUR)
    assert isinstance(d.conduct(wait=False), Ask)  # too old by now, and it is night
    d.later(15 * HOUR)
    d.tell("approve")
    assert d.conduct(wait=False) == Look("shop")
    d.later(7 * HOUR)
    d.tell("approve", "cutover/shop")
    assert d.conduct(wait=False) == Look("shop")
    d.tell("pause")
    d.later(7 * HOUR)
    d.tell("resume")
    assert d.conduct(wait=False) == Look("shop")
    assert len(entries(d, Waits)) == 4
