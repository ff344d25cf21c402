"""Each state that a real failback meets, reached by what brings it about, and left by what a person does."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from pipeline.errors import RunRefused, StoreUnavailable, TargetUnavailable
from pipeline.runs import commands, succession
from pipeline.runs.decide import Ask, Hold, Look, Over, Wait
from pipeline.runs.entries import Away, Decided
from pipeline.runs.journal import Journal
from pipeline.runs.ownership import advance, current
from pipeline.runs.report import headline, lines
from pipeline.runs.wake import Wakes
from pipeline.transfer.process import Process
from runs.conftest import MACHINES, Disaster

Make = Callable[..., Disaster]
HOUR = timedelta(hours=1)
TRAFFIC: dict[str, Any] = {"name": "shop", "waves": [["db"], ["web-1", "web-2"]]}
BY_ITSELF = {"cutover": False, "gate": False, "commit": False}


def on(d: Disaster, name: str, action: Callable[[], object], *, phase: str = "before") -> None:
    """Once, when a call of that name is made."""
    before, done = d._called, list[str]()

    def called(what: str, when: str) -> None:
        before(what, when)
        if what.startswith(name) and when == phase and not done:
            done.append(what)
            action()

    d.estate.fault = d.store.fault = d.platform.fault = called


def held(d: Disaster, state: str) -> Hold:
    coming = d.conduct()
    assert isinstance(coming, Hold), coming
    assert coming.state == state, coming
    return coming


def entries(d: Disaster, kind: type) -> list[Any]:
    return [e.body for e in Journal(d.repository, d.run).read() if isinstance(e.body, kind)]


# -- before anything is touched ----------------------------------------------------------------------------------------


def test_waiting_shows_its_reasons_and_goes_on_when_they_are_gone(disaster: Make) -> None:
    d = disaster(conditions=[{"name": "boss", "kind": "flag", "settings": {"flag": "go"}}])
    d.begin()
    assert d.conduct(wait=False) == Look()
    d.tell("flag", "go")
    assert isinstance(d.conduct(wait=False), Ask)
    assert d.state().met == {"boss": "holds: flag go is set"}


def test_waiting_ends_with_a_person_when_the_plan_says_how_long(disaster: Make) -> None:
    d = disaster(
        conditions=[{"name": "boss", "kind": "flag", "settings": {"flag": "go"}}],
        deadlines={"conditions": "1h", "downtime": "1h"},
    )
    d.begin()
    d.later(2 * HOUR)
    assert "as long as the plan allows" in held(d, "waiting").reason
    d.tell("retry")
    assert d.conduct(wait=False) == Look()
    assert "late" not in d.state().accepted  # the deadline of the downtime still counts


def test_one_that_only_waits_is_looked_at_without_an_entry(disaster: Make) -> None:
    d = disaster(conditions=[{"name": "boss", "kind": "flag", "settings": {"flag": "go"}}])
    d.begin()
    for _ in range(3):
        assert d.conductor().only_waits()
    assert d.state().number == 1
    d.tell("flag", "go")
    assert not d.conductor().only_waits()


def test_rehearsed(disaster: Make) -> None:
    d = disaster(rehearsal={"before_cutover": True}, approvals={"cutover": True, "commit": True})
    d.begin()
    asked = d.conduct()
    assert isinstance(asked, Ask)
    assert asked.what == "cutover/shop"
    assert set(d.state().effect("rehearse/shop").result["machines"]) == set(MACHINES)
    assert any("rehearsed db" in line for line in lines(d.state(), d.plan, asked))
    assert not d.platform.find_machines()
    assert not d.platform.find_disks(role="layer")
    assert d.works_at_takeover() == list(MACHINES)
    d.tell("approve")
    assert isinstance(d.conduct(), Ask)


def test_a_rehearsal_that_fails_holds_before_anything_is_touched(disaster: Make) -> None:
    d = disaster(rehearsal={"before_cutover": True})
    d.bad = {"web-1": "502"}
    d.begin()
    assert "502" in held(d, "held").reason
    assert d.works_at_takeover() == list(MACHINES)
    assert "run cancel" in d.state().stand.remedy  # type: ignore[union-attr]
    d.tell("cancel")
    assert d.conduct() == Over("cancelled")


# -- approvals ---------------------------------------------------------------------------------------------------------


def test_an_approval_that_expired_before_the_source_was_touched_is_asked_for_anew(disaster: Make) -> None:
    d = disaster(approvals={"cutover": True, "commit": True, "valid": "1h"})
    d.begin()
    assert isinstance(d.conduct(), Ask)
    d.tell("approve")
    d.later(2 * HOUR)
    asked = d.conduct()
    assert isinstance(asked, Ask)
    assert asked.state == "approval-expired"
    assert "asks for approval" in headline(d.state())
    assert d.works_at_takeover() == list(MACHINES)
    d.tell("approve")  # the only question that is open, so it needs no name
    assert isinstance(d.conduct(), Ask)
    assert d.works_at_takeover() == []


def test_an_approval_that_expires_after_the_source_was_touched_holds(disaster: Make) -> None:
    d = disaster(approvals={"cutover": True, "commit": True, "valid": "1h"})
    d.begin()
    d.conduct()
    d.tell("approve")
    assert d.killed(1, d.conduct, after=True, only="quiesce web-2")
    d.later(2 * HOUR)
    hold = held(d, "approval-expired")
    assert "approve" in hold.remedy
    assert "rollback" in hold.remedy
    assert not d.platform.find_machines()
    d.tell("approve", "cutover/shop")
    assert isinstance(d.conduct(), Ask)
    assert d.at_home() == dict.fromkeys(MACHINES, True)


def test_an_approval_is_good_for_no_other_set(disaster: Make) -> None:
    d = disaster(approvals={"cutover": True, "commit": True})
    d.begin()
    d.conduct()
    old = d.state().questions["cutover/shop"]
    d.tell("approve")
    word = Decided(verb="approve", what="cutover/shop", binding="0" * len(old.binding))
    with pytest.raises(RunRefused, match="asked anew, about another"):
        commands.tell(d.repository, d.run, d.plan, word)


# -- the source is lost ------------------------------------------------------------------------------------------------


def test_source_lost_shows_the_window_of_loss_and_goes_on_by_a_persons_word(disaster: Make) -> None:
    d = disaster()
    d.begin()
    on(d, "quiesce web-2", lambda: setattr(d.estate, "silent", True))
    hold = held(d, "source-lost")
    assert re.search(r"web-2@\d+, taken \d{4}-.*: what was written since is lost", hold.remedy), hold.remedy
    with pytest.raises(RunRefused, match="say why"):
        d.tell("override", machines=MACHINES)
    d.tell("override", machines=MACHINES, reason="the site burned down")
    assert isinstance(d.conduct(), Ask)
    assert d.at_home() == dict.fromkeys(MACHINES, True)
    final = d.state().effect("final/web-2").result
    assert final["lost_since"]
    assert "burned down" in final["override"]
    assert current(d.repository, "web-2").proof["override"]
    d.tell("approve")
    assert d.conduct() == Over("committed")


def test_a_source_that_is_lost_before_its_export_comes_home_from_its_newest_point(disaster: Make) -> None:
    d = disaster()
    d.begin()
    assert isinstance(d.conduct(), Ask)
    d.tell("rollback", "shop", discard=True)
    assert d.conduct() == Over("rolled back")
    d.estate.silent = True
    d.begin()
    held(d, "source-lost")
    d.tell("override", machines=MACHINES, reason="it is gone")
    assert isinstance(d.conduct(), Ask)
    assert d.at_home() == dict.fromkeys(MACHINES, True)


def test_nobody_vouches_for_what_is_seen_to_run(disaster: Make) -> None:
    d = disaster()
    d.begin()
    on(d, "quiesce web-2", lambda: setattr(d.estate, "silent", True))
    held(d, "source-lost")
    d.tell("override", machines=MACHINES, reason="it is gone, they say")
    d.estate.silent = False
    assert "runs at the takeover site" in held(d, "foreign-change").reason
    assert not any(d.at_home().values())
    assert d.double == []


# -- the store ---------------------------------------------------------------------------------------------------------


class Outage:
    """The store does not answer, from a call on and for as many naps of those who wait for it."""

    def __init__(self, d: Disaster, name: str, naps: int, *, lasts: timedelta) -> None:
        self.d, self.name, self.naps, self.lasts, self.away = d, name, naps, lasts, False
        self.seen: list[str] = []
        self._pause, self._called = d._pause, d._called
        d._pause = self._nap  # type: ignore[method-assign]
        d.estate.fault = d.platform.fault = self._watch
        d.store.fault = self._store

    def _watch(self, name: str, phase: str) -> None:
        self._called(name, phase)
        if name.startswith(self.name) and phase == "after" and self.naps:
            self.away = True
        if self.away:
            self.seen.append(name)

    def _store(self, name: str, phase: str) -> None:
        self._called(name, phase)
        if self.away:
            raise StoreUnavailable("the bucket is away")

    def _nap(self, seconds: float) -> None:
        self._pause(seconds)
        if self.away:
            self.naps -= 1
            if not self.naps:
                self.away = False
                self.d.later(self.lasts)


@pytest.mark.parametrize("on_failure", ["hold", "rollback"])
def test_commit_pending_undoes_nothing_and_no_deadline_runs_meanwhile(
    disaster: Make, on_failure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    d = disaster(on_failure=on_failure, deadlines={"downtime": "1h"})
    d.begin()
    outage = Outage(d, "power_on", 3, lasts=timedelta())
    slept: list[float] = []
    monkeypatch.setattr("pipeline.runs.conductor._boottime", lambda: _boot() + sum(slept))
    nap = outage._nap

    def long_nap(seconds: float) -> None:
        slept.extend([2400.0] if outage.away else [])
        nap(seconds)

    d._pause = long_nap  # type: ignore[method-assign]
    monkeypatch.setattr("pipeline.runs.store_clock.time", _Time(slept))
    outage.lasts = timedelta(seconds=3 * 2400)
    coming = d.conduct()
    assert isinstance(coming, Ask), coming
    assert d.at_home() == dict.fromkeys(MACHINES, True)
    assert d.works_at_takeover() == []
    assert any("nothing is undone" in text for text in d.said)
    assert [round(body.seconds) for body in entries(d, Away)] == [7200]
    assert not [name for name in outage.seen if name.startswith(("resume", "power_off"))]


def test_what_was_read_before_the_store_failed_is_not_forgotten(disaster: Make) -> None:
    d = disaster(approvals={"cutover": True, "commit": True})
    d.begin()
    d.conduct()
    conductor = d.conductor()
    conductor._refresh()
    d.tell("flag", "one")
    d.tell("approve")
    number = d.state().number

    def away(name: str, _phase: str) -> None:
        if name == f"get runs/{d.run}/journal/{number:010d}":
            raise StoreUnavailable("the bucket is away")

    d.store.fault = away
    with pytest.raises(StoreUnavailable):
        conductor._refresh()
    d.store.fault = lambda _name, _phase: None
    conductor._refresh()
    assert conductor.state.flags == {"one"}
    assert conductor.state.number == number


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_a_store_whose_clock_jumps_commits_nothing_by_itself(disaster: Make) -> None:
    d = disaster(approvals=BY_ITSELF, commit={"after": "1h", "green": 1, "every": "30min"})
    d.begin()
    conductor = d.conductor()
    jumped: list[int] = []

    def pause(seconds: float) -> None:
        d._pause.__func__(d, seconds)  # type: ignore[attr-defined]
        if not jumped:
            jumped.append(1)
            d.store.ahead = 10 * HOUR
            conductor._beat_once()
            conductor._beat_once()  # the next look finds nothing new: it is suspect none the less

    conductor.crew = type(conductor.crew)(
        **{f: getattr(conductor.crew, f) for f in conductor.crew.__dataclass_fields__} | {"pause": pause}
    )
    coming = conductor.conduct()
    assert isinstance(coming, Hold)
    assert coming.state == "clock-suspect"
    assert "jumped by +36000 s" in coming.reason
    assert all(current(d.repository, m).side == "home-provisional" for m in MACHINES)
    d.tell("retry")
    assert isinstance(d.conduct(wait=False), Wait | Over)


def test_a_host_that_was_frozen_does_not_make_the_clock_suspect(
    disaster: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual machine that was suspended counts nothing since its boot; its clock is set when it wakes up."""
    from pipeline.runs import store_clock

    d = disaster()
    clock = store_clock.StoreClock(d.store, "runs/clock")
    clock.look(b"{}")
    d.store.ahead = HOUR
    monkeypatch.setattr(store_clock, "datetime", _Ahead(HOUR))
    clock.look(b"{}")
    assert clock.suspect == ""
    d.store.ahead = 3 * HOUR
    clock.look(b"{}")
    assert "+7200 s" in clock.suspect


@pytest.mark.parametrize("on_failure", ["hold", "rollback"])
def test_a_guest_whose_clock_is_off_keeps_the_gate_closed(disaster: Make, on_failure: str) -> None:
    d = disaster(on_failure=on_failure)
    d.begin()
    d.platform.ahead = -7200.0
    hold = held(d, "clock-suspect")
    assert "off the store's" in hold.reason
    assert d.at_home() == dict.fromkeys(MACHINES, True)
    d.tell("retry")
    assert isinstance(d.conduct(), Ask)


# -- somebody else -----------------------------------------------------------------------------------------------------


def test_an_epoch_that_another_run_took_ends_what_this_one_does(disaster: Make) -> None:
    d = disaster(on_failure="rollback")
    d.begin()

    def take() -> None:
        advance(d.repository, current(d.repository, "db"), "takeover", run="other-20260101-000000-abcdef", proof={})

    on(d, "stop db", take, phase="after")
    hold = held(d, "foreign-change")
    assert "other-20260101-000000-abcdef" in hold.reason
    assert not any(d.at_home().values())


def test_a_way_back_does_not_switch_off_what_another_run_started(disaster: Make) -> None:
    d = disaster()
    d.begin()
    assert isinstance(d.conduct(), Ask)
    other = "other-20260101-000000-abcdef"
    for side in ("takeover", "moving", "home-provisional"):
        advance(d.repository, current(d.repository, "db"), side, run=other, proof={"by": "hand"})
    d.tell("rollback", "shop", discard=True)
    assert other in held(d, "foreign-change").reason
    assert d.at_home()["db"]


def test_a_home_machine_that_somebody_switched_off_is_seen_before_users_come_in(disaster: Make) -> None:
    d = disaster(on_failure="rollback")
    d.begin()

    before = d._called

    def called(name: str, phase: str) -> None:
        before(name, phase)
        if name.startswith("put runs/") and phase == "after" and d.at_home().get("db"):
            [machine] = [m for m in d.platform.machines.values() if m.tags["machine"] == "db"]
            machine.on = False

    d.estate.fault = d.store.fault = d.platform.fault = called
    hold = held(d, "foreign-change")
    assert "db" in hold.reason
    assert d.works_at_takeover() == []


@pytest.mark.parametrize("when", ["lock db", "create_machine"])
def test_a_takeover_machine_that_is_found_on_again_lets_nobody_start_at_home(disaster: Make, when: str) -> None:
    d = disaster(on_failure="rollback")
    d.begin()
    on(d, when, lambda: d.estate.turn("db", "on"), phase="after")
    assert "db runs at the takeover site" in held(d, "foreign-change").reason
    assert not any(d.at_home().values())
    assert d.double == []


def test_a_takeover_machine_that_is_found_on_again_keeps_the_gate_closed(disaster: Make, tmp_path: Any) -> None:
    gate = {
        "name": "dns", "kind": "command",
        "settings": {"open": ["touch", f"{tmp_path}/open"], "close": ["rm", "-f", f"{tmp_path}/open"]},
    }  # fmt: skip
    d = disaster(groups=[TRAFFIC | {"traffic": [gate]}], approvals={"cutover": False, "gate": True, "commit": True})
    d.begin()
    assert isinstance(d.conduct(), Ask)
    d.estate.machines["web-1"].power = "on"  # somebody did not know
    d.tell("approve")
    assert "web-1 runs" in held(d, "foreign-change").reason
    assert not (tmp_path / "open").exists()


# -- held, split, late -------------------------------------------------------------------------------------------------


def test_held_says_what_to_do_and_does_nothing_more(disaster: Make) -> None:
    d = disaster()
    d.begin()
    d.conduct()
    d.tell("hold", reason="lunch")
    calls = len(d.platform.calls)
    assert "lunch" in held(d, "held").reason
    assert len(d.platform.calls) == calls
    d.tell("retry")
    d.tell("approve")
    assert d.conduct() == Over("committed")


def test_a_split_that_crosses_a_dependency_says_so(disaster: Make) -> None:
    d = disaster()
    assert commands.crossing(d.plan, "shop", ("db",)) == [
        "web-1 (home) needs db (takeover)",
        "web-2 (home) needs db (takeover)",
    ]


def late(d: Disaster) -> None:
    """The downtime is longer than allowed, when the first machine is up at home."""
    on(d, "power_on", lambda: d.later(2 * HOUR), phase="after")
    d.begin()
    assert d.killed(2, d.conduct, only="power_on")


def test_a_downtime_that_is_late_is_held(disaster: Make) -> None:
    d = disaster(deadlines={"downtime": "1h"})
    late(d)
    assert "longer than 3600 s" in held(d, "late").reason
    assert d.works_at_takeover() == []


def test_a_downtime_that_is_late_is_rolled_back_where_the_plan_says_so(disaster: Make) -> None:
    d = disaster(deadlines={"downtime": "1h"}, on_failure="rollback")
    late(d)
    assert d.conduct() == Over("rolled back")
    assert d.works_at_takeover() == list(MACHINES)
    assert d.double == []


def test_nothing_is_rolled_back_for_being_late_once_the_gate_is_open(disaster: Make) -> None:
    d = disaster(deadlines={"downtime": "1h"}, on_failure="rollback")
    d.begin()
    assert isinstance(d.conduct(), Ask)
    d.later(2 * HOUR)
    assert isinstance(d.conduct(), Ask)
    assert d.at_home() == dict.fromkeys(MACHINES, True)
    with pytest.raises(RunRefused, match="--discard"):
        d.tell("rollback", "shop")


def test_going_back_while_home_is_unreachable_is_held_and_starts_nothing(disaster: Make) -> None:
    d = disaster()
    d.bad = {"web-2": "502"}
    d.begin()
    held(d, "held")
    d.tell("rollback", "shop")

    def away(name: str, phase: str) -> None:
        d._called(name, phase)
        if name.startswith(("ask_to", "power_off")):
            raise TargetUnavailable("home does not answer")

    d.platform.fault = away
    hold = held(d, "held")
    assert "home does not answer" in hold.reason
    assert "override --home" in hold.remedy
    assert d.works_at_takeover() == []
    assert not any(m.power == "on" for m in d.estate.machines.values())
    with pytest.raises(RunRefused, match="say why"):
        d.tell("override", "home", machines=MACHINES)
    d.tell("override", "home", machines=MACHINES, reason="the power of the whole hall is off")
    assert d.conduct() == Over("rolled back")
    assert d.works_at_takeover() == list(MACHINES)
    assert "hall" in current(d.repository, "web-2").proof["override"]


def test_nobody_vouches_for_home_on_the_way_forth(disaster: Make) -> None:
    d = disaster()
    d.begin()
    d.conduct()
    with pytest.raises(RunRefused, match="does not go back"):
        d.tell("override", "home", machines=("db",), reason="it is off")


# -- two who act at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("verb", "match"), [("cancel", "touched already"), ("rollback", "--discard")])
def test_a_word_that_fits_no_more_when_it_comes_is_refused(
    disaster: Make, verb: str, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the journal and the word, the run went on."""
    d = disaster(approvals={"cutover": True, "gate": True, "commit": True})
    d.begin()
    d.conduct()
    if verb == "rollback":
        d.tell("approve")
        d.conduct()
    d.tell("approve")
    check, passed = commands.check, list[int]()

    def slow(*given: Any) -> None:
        check(*given)
        if not passed:
            passed.append(1)
            d.conduct()

    monkeypatch.setattr(commands, "check", slow)
    with pytest.raises(RunRefused, match=match):
        d.tell(verb, "shop" if verb == "rollback" else "")
    assert d.state().cancelled == ""
    assert d.state().back == {}


def test_a_commit_that_comes_before_it_is_asked_for_is_kept(disaster: Make) -> None:
    number = _asked(disaster)
    d = disaster()
    d.begin()
    assert d.killed(1, d.conduct, only=f"put runs/{d.run}/journal/{number:010d}")
    assert d.state().questions == {}
    d.tell("commit", "commit/shop")
    assert d.conduct() == Over("committed")


def _asked(disaster: Make) -> int:
    """The number of the entry that asks for the commit."""
    d = disaster()
    d.begin()
    d.conduct()
    return d.state().number


def test_a_conductor_that_ended_is_replaced_at_once(disaster: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from another host, which cannot know whether its process is dead."""
    d = disaster()
    d.begin()
    d.conduct()
    monkeypatch.setattr("pipeline.transfer.process.Process.alive", lambda _self, _here: None)
    d.tell("approve")
    assert d.conduct() == Over("committed")


def test_a_process_that_conducts_again_does_not_kill_itself(disaster: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    d = disaster()
    d.begin()
    first = d.conductor()
    first.here = Process.current()
    first.take_over()
    monkeypatch.setattr(succession, "SILENT", timedelta(seconds=-1))
    monkeypatch.setattr(succession, "end_sleeper", lambda _process: pytest.fail("it would kill itself"))
    second = d.conductor()
    second.here = Process.current()
    assert isinstance(second.conduct(), Ask)


class _Time:
    """The module `time`, of a host that slept."""

    def __init__(self, slept: list[float]) -> None:
        self._slept = slept

    def __getattr__(self, name: str) -> Any:
        import time

        return getattr(time, name)

    def clock_gettime(self, which: int) -> float:
        import time

        return time.clock_gettime(which) + sum(self._slept)


class _Ahead:
    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self, zone: Any) -> Any:
        from datetime import datetime

        return datetime.now(zone) + self._ahead


def _boot() -> float:
    import time

    return time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_run_that_is_over_costs_one_look_and_no_reading(disaster: Make) -> None:
    d = disaster()
    d.begin()
    d.conduct()
    d.tell("approve")
    assert d.conduct() == Over("committed")
    got: list[str] = []
    d.store.fault = lambda name, _phase: got.append(name) if name.startswith("get runs/") else None
    wakes = Wakes(d.repository, lambda _plan, _control: pytest.fail("it is over"))
    assert wakes.due() == []
    assert len(got) == 1
    assert wakes.due() == []
    assert len(got) == 1


def test_a_journal_has_no_process_killed_that_is_not_a_conductor() -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    ours = subprocess.Popen(["sh", "-c", "echo; sleep 60; : failback run conduct"], stdout=subprocess.PIPE)
    assert ours.stdout is not None
    try:
        ours.stdout.readline()  # a process that has just become another program has no words for a moment
        assert not succession.end_sleeper({"pid": stranger.pid})
        assert stranger.poll() is None
        assert succession.end_sleeper({"pid": ours.pid})
        assert ours.wait(10) == -signal.SIGKILL
    finally:
        for process in (stranger, ours):
            process.kill()
            process.wait()
