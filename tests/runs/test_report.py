"""What people are told of a run is true at that moment, and what they are to type is there as a whole."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable

import pytest

from pipeline.errors import RunRefused
from pipeline.home.control import Controller
from pipeline.home.site import Ground
from pipeline.runs.commands import question
from pipeline.runs.decide import Ask, Hold, Over
from pipeline.runs.downtime import downtime
from pipeline.runs.fold import Effect
from pipeline.runs.journal import Journal
from pipeline.runs.ownership import current
from pipeline.runs.report import entry_line, lines, undo
from pipeline.runs.runbook import runbook
from pipeline.runs.status import status_lines, status_of
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


def shown(d: Disaster) -> str:
    return "\n".join(lines(d.state(), d.plan, None))


def test_the_way_back_is_not_offered_to_a_run_that_takes_it_or_took_it(disaster: Make) -> None:
    d = disaster()
    d.bad = {"db": "no answer"}
    d.begin()
    assert isinstance(d.conduct(), Hold)
    assert "failback run rollback" in undo(d.state(), d.plan)
    d.tell("rollback", "shop")
    assert "failback run rollback" not in shown(d)
    assert undo(d.state(), d.plan).startswith("it is going back")
    # What is off at the takeover side and was never at home is on its way back as well.
    assert shown(d).count("goes back") == 1 + len(MACHINES)
    assert d.conduct() == Over("rolled back")
    assert undo(d.state(), d.plan) == "it went back: the takeover side runs again"


def test_a_split_is_offered_where_the_others_are_of_use_without_the_one_that_fails(disaster: Make) -> None:
    d = disaster()
    d.bad = {"web-2": "502"}
    d.begin()
    held = d.conduct()
    assert isinstance(held, Hold)
    assert f"`failback run split {d.run} web-2`: it stays at the takeover site, and db, web-1 come home" in held.remedy
    d = disaster()
    d.bad = {"db": "no answer"}
    d.begin()
    held = d.conduct()
    assert isinstance(held, Hold)
    assert "split" not in held.remedy


def test_conditions_that_are_waited_for_are_told_once_and_again_when_they_hold(disaster: Make) -> None:
    d = disaster(conditions=[{"name": "go", "kind": "flag", "settings": {"flag": "go"}}])
    d.begin()
    conductor = d.conductor()
    looks = itertools.count(1)
    d.paused = lambda _seconds: d.tell("flag", "go") if next(looks) == 3 else None
    conductor.conduct()
    told = [text for text in d.said if text.startswith("go: ")]
    assert [text.split(": ")[1] for text in told] == ["waiting", "holds"]


def test_a_rollback_does_not_wait_for_a_guest_whose_writes_are_thrown_away(disaster: Make) -> None:
    d = disaster()
    d.bad = {"db": "no answer"}
    d.begin()
    assert isinstance(d.conduct(), Hold)
    calls: list[str] = []
    d.platform.fault = lambda name, phase: calls.append(name) if phase == "before" else None
    d.tell("rollback", "shop")
    assert d.conduct() == Over("rolled back")
    assert any(call.startswith("power_off") for call in calls)
    assert not any(call.startswith("ask_to") for call in calls)


def test_a_conductor_that_is_dead_is_not_said_to_conduct(disaster: Make) -> None:
    d = disaster()
    d.begin()
    assert d.killed(1, d.conduct, only="put leases/")
    told = status_lines(d.state(), status_of(d.repository, d.state()))
    assert not any("conducted by" in line for line in told)
    assert any(f"is dead: `failback run conduct {d.run}` goes on" in line for line in told)


def test_the_runbook_of_a_run_that_is_over_has_no_steps_that_would_undo_it(disaster: Make) -> None:
    d = disaster()
    d.begin()
    asked = d.conduct()
    assert isinstance(asked, Ask)
    assert "### To go back by hand" in page(d)
    assert "commit/shop accepts for good db: db@" in "\n".join(lines(d.state(), d.plan, asked))
    d.tell("approve")
    assert d.conduct() == Over("committed")
    assert "by hand" not in page(d).partition("## Without failback")[0]


def page(d: Disaster) -> str:
    return runbook(d.state(), d.plan, lambda machine: current(d.repository, machine), lambda _machine: {})


def test_the_runbook_does_not_finish_with_disks_that_lack_what_was_written_since(disaster: Make) -> None:
    d = disaster(
        approvals={"cutover": True, "gate": False, "commit": True},
        source={"kind": "simulated", "options": {"socket": "/run/takeover"}},
    )
    d.begin()
    assert isinstance(d.conduct(), Ask)
    steps = page(d).partition("### To finish by hand")[2]
    off, lacking = steps.index("see that db is off"), steps.index("what db wrote since db@1 is not at home")
    assert off < lacking < steps.index("start db at")
    assert '`{"socket": "/run/takeover"}`' in page(d), "how all machines are reached there"
    d.tell("approve")
    state = d.state()
    state.effects["final/db"] = Effect(attempts=1, done=True, result={"point": "db@2"})
    written = runbook(state, d.plan, lambda machine: current(d.repository, machine), lambda _machine: {})
    assert "bring db@2 onto the disks of db at home: they hold db@1" in written
    d.conduct()
    assert d.state().done("refresh/db")
    assert "at home: " not in page(d)


def test_what_a_person_can_do_is_said_whoever_looks(disaster: Make) -> None:
    def told(d: Disaster) -> str:
        state = d.state()
        return "\n".join([*lines(state, d.plan, None), *status_lines(state, status_of(d.repository, state))])

    d = disaster(
        approvals={"cutover": True, "gate": False, "commit": True},
        conditions=[{"name": "boss", "kind": "flag", "settings": {"flag": "go"}}],
    )
    d.begin()
    coming = d.conduct(wait=False)
    assert f"`failback run conduct {d.run}` looks at the conditions again" in "\n".join(
        lines(d.state(), d.plan, coming)
    )
    assert f"`failback run conduct {d.run}` goes on" in told(d)
    d.tell("flag", "go")
    assert isinstance(d.conduct(), Ask)
    assert f"`failback run approve {d.run}` or `failback run reject {d.run}`" in told(d)
    assert "run conduct" not in told(d), "that would only ask again"
    d.tell("pause")
    assert f"`failback run resume {d.run}`" in told(d)
    assert "run approve" not in told(d)
    d.tell("resume")
    d.tell("hold", reason="look")
    assert f"`failback run retry {d.run}`" in told(d)
    held = d.conduct()
    assert isinstance(held, Hold)
    assert f"`failback run retry {d.run}`" in held.remedy
    d.tell("retry")
    d.tell("approve")
    assert f"`failback run conduct {d.run}` goes on" in told(d)
    assert isinstance(d.conduct(), Ask)
    assert "run approve" in told(d)
    d.tell("rollback", "shop", discard=True)
    assert "run approve" not in told(d), "a group that goes back is asked nothing more"
    assert f"`failback run conduct {d.run}` goes on" in told(d)


def test_the_journal_reads_as_words(disaster: Make) -> None:
    d = disaster(conditions=[{"name": "boss", "kind": "flag", "settings": {"flag": "go"}}])
    d.bad = {"web-1": "502"}
    d.begin()
    d.tell("flag", "go")
    d.conduct()
    d.bad = {}
    d.tell("retry", reason="mended")
    d.conduct()
    d.tell("approve")
    d.conduct()
    entries = Journal(d.repository, d.run).read()
    read = [entry_line(entry) for entry in entries]
    kinds = {entry.body.kind for entry in entries}
    assert {"started", "taken", "met", "intended", "ended", "held", "asked", "decided", "finished"} <= kinds
    assert all(not re.search("[{}=]", line) for line in read), "nobody reads what Python prints"
    assert any("export/db: done, db@1" in line for line in read)
    assert any("verify/web-1: failed: web-1 is not verified" in line for line in read)
    assert any(line.endswith("retry: mended  (ada)") for line in read)
    assert any("commit/shop: db@2, web-1@2, web-2@2" in line for line in read)


def test_the_runbook_says_of_every_kind_of_gate_what_has_to_be_done(disaster: Make) -> None:
    wires = {"name": "wires", "kind": "port-group", "settings": {"open": "lan", "closed": "quarantine"}}
    dns = {"name": "dns", "kind": "command", "settings": {"open": ["dns", "home"], "close": ["dns", "takeover"]}}
    d = disaster(groups=[{"name": "shop", "waves": [["db"], ["web-1", "web-2"]], "traffic": [wires, dns]}])
    d.begin()
    page = runbook(d.state(), d.plan, lambda machine: current(d.repository, machine), lambda _machine: {})
    finish, back = page.partition("### To go back by hand")[::2]
    assert 'open wires: port-group `{"closed": "quarantine", "open": "lan"}`' in finish
    assert 'open dns: command `["dns", "home"]`' in finish
    assert 'close dns: command `["dns", "takeover"]`' in back
    assert 'close wires: port-group `{"closed": "quarantine", "open": "lan"}`' in back


def test_an_answer_that_nobody_asked_for_is_told_what_is_asked(disaster: Make) -> None:
    d = disaster()
    d.begin()
    with pytest.raises(RunRefused, match="asks nothing now"):
        question(d.state(), d.plan)
    d.conduct()
    with pytest.raises(RunRefused, match="does not ask gate/shop, but commit/shop"):
        question(d.state(), d.plan, "gate/shop")


def test_what_the_downtime_went_to_adds_up_and_ends_where_users_come_in(disaster: Make) -> None:
    d = disaster(approvals={"cutover": True, "gate": False, "commit": True})
    [group] = d.plan.groups
    d.begin()
    d.conduct()
    assert downtime(d.state(), group) is None, "machines are exported and staged while they work"
    d.tell("approve")
    d.conduct()
    state = d.state()
    found = downtime(state, group)
    assert found is not None
    verbs = ("quiesce", "final", "stop", "prove", "lock", "set", "refresh", "own", "boot", "verify", "clock")
    assert set(found.steps) == set(verbs)
    ends = [e.ended for name, e in state.effects.items() if name.partition("/")[0] in verbs and e.ended]
    assert found.since == min(e.since for n, e in state.effects.items() if n.startswith("quiesce/") and e.since)
    assert found.seconds == pytest.approx((max(ends) - found.since).total_seconds(), abs=0.02)
    assert {"moment", "read", "commit"} <= set(state.effect("final/db").result["steps"])
    assert {"preflight", "stage"} <= set(state.effect("refresh/db").result["steps"])
    assert {"build", "boot"} <= set(state.effect("boot/db").result["steps"])
    assert state.effect("final/db").result["disks"][0]["mode"] == "changed blocks"
    assert "  down " in "\n".join(lines(state, d.plan, None))
    # What comes after is none.
    d.tell("approve")
    d.conduct()
    assert d.state().outcome == "committed"
    assert downtime(d.state(), group) == found


def test_a_group_that_is_taken_back_has_no_downtime_that_is_over(disaster: Make) -> None:
    d = disaster()
    d.bad = {"web-1": "502"}
    d.begin()
    d.conduct()
    d.tell("rollback", "shop")
    d.conduct()
    assert d.state().outcome == "rolled back"
    assert downtime(d.state(), d.plan.groups[0]) is None
