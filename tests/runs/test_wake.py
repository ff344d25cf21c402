"""Looking after all runs: what is wrong with one is told, and does not keep the others from being conducted."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from pipeline.errors import AccessDenied, StoreUnavailable
from pipeline.home.control import Controller
from pipeline.home.site import Ground
from pipeline.plans.model import Plan
from pipeline.runs import journal as journals
from pipeline.runs.begin import begin
from pipeline.runs.entries import Taken, to_record
from pipeline.runs.journal import Journal
from pipeline.runs.wake import Wakes
from pipeline.source import SourceContext
from runs.conftest import Disaster

Make = Callable[..., Disaster]


def wakes(d: Disaster, told: list[str]) -> Wakes:
    def ground(_plan: Plan, control: Controller) -> Ground:
        return Ground(d.repository, d.root / "served", control, parallel=2)

    return Wakes(d.repository, ground, lambda run, text: told.append(f"{run}: {text}"))


def again(served: Wakes) -> list[str]:
    """As if time had passed."""
    served._searched = -float("inf")
    return served.due()


def test_a_plan_that_was_written_over_is_not_executed(disaster: Make) -> None:
    from manifests.envelope import Kind
    from manifests.manifest import encode_record
    from manifests.names import plan_key

    d = disaster()
    d.begin()
    other = d.plan.model_copy(update={"on_failure": "rollback"}).model_dump(mode="json")
    key = plan_key("shop", 1)
    record = {"format": 1, "plan": other, "time": "", "by": "mallory"}
    d.store.put(key, encode_record(Kind.RECORD, record, sealing=d.repository.sealing, key=key))
    told: list[str] = []
    served = wakes(d, told)
    assert served.due() == [d.run]
    served.work(d.run)
    assert d.state().number == 1, told
    assert any("somebody wrote over it" in text for text in told)


def test_programs_of_a_source_are_told_the_run_they_work_for(disaster: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    d = disaster()
    d.begin()
    contexts: list[SourceContext] = []

    def source(kind: str, context: SourceContext) -> object:
        contexts.append(context)
        return d._source(kind, context)

    monkeypatch.setattr("pipeline.runs.crew.open_source", source)
    served = wakes(d, [])
    for run in served.due():
        served.work(run)
    assert [context.run for context in contexts] == [d.run]


def two_runs(d: Disaster) -> tuple[str, str]:
    """Of two plans: the second one's journal is what something is wrong with."""
    from pipeline.plans.stored import put

    first = d.begin()
    plan = d.plan.model_copy(update={"name": "zoo"})
    stored, _fresh = put(d.repository, plan, plan.model_dump(mode="json"))
    return first, begin(d.repository, stored).run


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_run_that_may_not_be_read_does_not_keep_the_others_waiting(disaster: Make, when: str) -> None:
    d = disaster()
    good, bad = two_runs(d)
    told: list[str] = []
    served = wakes(d, told)
    if when == "meanwhile":
        assert set(served.due()) == {good, bad}
        served.forget(good)
        served.forget(bad)
        d.run = bad
        d.tell("flag", "go")

    def denied(name: str, _phase: str) -> None:
        if name.startswith(f"get runs/{bad}/"):
            raise AccessDenied("access denied")

    d.store.fault = denied
    assert good in again(served)
    assert bad not in again(served)
    assert [text for text in told if "access denied" in text] == [f"{bad}: access denied"]
    d.store.fault = lambda _name, _phase: None
    assert bad in again(served)


def test_a_run_of_a_newer_failback_does_not_keep_the_others_waiting(
    disaster: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    d = disaster()
    good, bad = two_runs(d)
    monkeypatch.setattr(journals, "to_record", lambda *given: to_record(*given) | {"format": 2})
    d.run = bad
    with pytest.raises(Exception, match="has format 2"):
        d.tell("flag", "go")
    told: list[str] = []
    served = wakes(d, told)
    assert served.due() == [good]
    assert any(text.startswith(f"{bad}: ") and "has format 2" in text for text in told)


def test_a_word_that_was_read_before_the_store_failed_wakes_its_run(disaster: Make) -> None:
    d = disaster()
    d.begin()
    told: list[str] = []
    served = wakes(d, told)
    for run in served.due():
        served.work(run)
    assert any("asks for approval" in text for text in told)
    assert served.due() == []
    d.tell("approve")
    taken = Taken(conductor=d.state().conductor + 1, process=d.conductor().here.document())
    Journal(d.repository, d.run).append(taken)
    number = d.state().number

    def away(name: str, _phase: str) -> None:
        if name == f"get runs/{d.run}/journal/{number:010d}":
            raise StoreUnavailable("the bucket is away")

    d.store.fault = away
    with pytest.raises(StoreUnavailable):
        served.due()
    d.store.fault = lambda _name, _phase: None
    assert served.due() == [d.run]


def test_a_word_is_not_forgotten_with_a_database_that_was_lost_when_it_came(disaster: Make) -> None:
    d = disaster()
    d.begin()
    served = wakes(d, [])
    for run in served.due():
        served.work(run)
    d.tell("approve")
    assert served.due() == [d.run]
    served.forget(d.run)  # it could not be put into the queue
    assert served.due() == [d.run]


def test_a_state_folder_without_room_is_no_bug(disaster: Make) -> None:
    d = disaster()
    d.begin()
    told: list[str] = []
    served = wakes(d, told)

    def full(_plan: Plan, _control: Controller) -> Ground:
        raise OSError(errno.ENOSPC, "No space left on device", "/state")

    served.grounds = full
    for run in served.due():
        served.work(run)
    assert "No space left on device" in told[-1]
    assert "bug" not in told[-1]
