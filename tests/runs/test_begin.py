"""One run of a plan at a time, and it executes the plan that it began with, and no other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from manifests.envelope import Kind
from manifests.manifest import encode_record
from manifests.names import plan_key, run_entry_key
from pipeline.errors import CorruptObject, RunRefused
from pipeline.plans.stored import put, read
from pipeline.runs.begin import begin, find_run, runs
from pipeline.runs.decide import Hold
from runs.conftest import Disaster
from runs.test_states import on

Make = Callable[..., Disaster]


def test_a_plan_that_was_written_over_is_refused(disaster: Make) -> None:
    d = disaster()
    d.begin()
    assert find_run(d.repository, d.run)[1].plan == d.plan
    other = d.plan.model_dump(mode="json") | {"approvals": {"cutover": False, "commit": False}}
    key = plan_key("shop", 1)
    record = {"format": 1, "plan": other, "time": "2026-11-30T00:00:00Z", "by": "somebody"}
    d.store.put(key, encode_record(Kind.RECORD, record, sealing=d.repository.sealing, key=key))
    with pytest.raises(RunRefused, match="wrote over it"):
        find_run(d.repository, d.run)
    with pytest.raises(RunRefused, match=r"shop@1 with digest"):
        begin(d.repository, read(d.repository, "shop", 1))


@pytest.mark.parametrize("phase", ["before", "after"])
def test_two_who_begin_at_once_begin_one_run(disaster: Make, phase: str) -> None:
    """Each has seen that there is none, such as timers of two hosts."""
    d = disaster()
    stored, _fresh = put(d.repository, d.plan, d.plan.model_dump(mode="json"))
    theirs = []
    on(d, "put runs/shop-", lambda: theirs.append(begin(d.repository, stored)), phase=phase)
    mine = begin(d.repository, stored)
    assert [state.run for state in runs(d.repository, "shop") if state.outcome is None] == [mine.run]
    assert mine.run == theirs[0].run
    assert mine.fresh != theirs[0].fresh


def test_a_run_whose_first_entry_went_away_is_none_that_never_was(disaster: Make) -> None:
    d = disaster()
    d.begin()
    d.conduct()
    d.store.delete_many([run_entry_key(d.run, 1)])
    with pytest.raises(CorruptObject, match="is missing"):
        find_run(d.repository, d.run)


def test_a_damaged_run_of_another_plan_with_a_longer_name_does_not_count(disaster: Make) -> None:
    d = disaster()
    d.begin()
    longer = d.plan.model_copy(update={"name": "shop-2"})
    stored, _fresh = put(d.repository, longer, longer.model_dump(mode="json"))
    other = begin(d.repository, stored).run
    d.store.put(run_entry_key(other, 1), b"garbage")
    assert find_run(d.repository, "shop")[0].run == d.run


@pytest.mark.parametrize("lost", [1, 8])
def test_a_journal_that_lost_its_end_is_not_written_on(disaster: Make, lost: int) -> None:
    d = disaster()
    d.begin()
    d.conduct()
    number = d.state().number
    d.store.delete_many([run_entry_key(d.run, number - n) for n in range(lost)])
    for action in (d.conduct, lambda: d.tell("hold")):
        with pytest.raises(CorruptObject, match=f"ends with entry {number - lost}, and conductor 1 had read {number}"):
            action()
    assert d.state().number == number - lost


def test_a_journal_that_lost_its_newest_conductor_is_not_written_on(disaster: Make) -> None:
    d = disaster()
    d.begin()
    d.conduct()
    d.conduct()
    number = d.state().number
    d.store.delete_many([run_entry_key(d.run, number)])
    with pytest.raises(CorruptObject, match="conductor 2 had read"):
        d.conduct()


def test_a_rehearsal_begun_by_the_clock_leaves_a_cutover_alone(disaster: Make) -> None:
    d = disaster()
    cutover = d.begin()
    assert d.killed(1, d.conduct, only="power_on")
    layers = d.platform.find_disks(role="layer")
    d.begin("rehearsal")
    coming = d.conduct()
    assert isinstance(coming, Hold)
    assert f"db is home-provisional, by run {cutover}" in coming.reason
    assert d.platform.find_disks(role="layer") == layers
