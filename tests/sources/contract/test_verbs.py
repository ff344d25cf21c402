"""The contract: a machine gives up its place, whatever comes in between, and comes back."""

from __future__ import annotations

import pytest

from pipeline.errors import SourceError, SourceUnavailable, Superseded, Unsupported
from sources.contract.harness import MACHINE, Harness

FENCED = ("quiesce", "stop", "lock", "resume", "retire")


def order(harness: Harness) -> list[str]:
    """The verbs of a cutover."""
    verbs = ["stop", "prove_stopped", "lock"]
    return verbs if harness.able.quiesce == "none" else ["quiesce", *verbs]


def go(harness: Harness, steps: int, epoch: int = 1) -> None:
    for verb in order(harness)[:steps]:
        harness.do(verb, epoch)


def test_a_machine_that_works_is_seen_on(harness: Harness) -> None:
    assert harness.works()
    state = harness.seen()
    assert (state.power, state.locked, state.quiesced, state.epoch) == ("on", False, False, 0)
    assert not state.proved_off


def test_nothing_stands_against_it(harness: Harness) -> None:
    things = harness.things()
    with harness.open() as source:
        findings = source.preflight(MACHINE, harness.settings())
    assert [finding for finding in findings if finding.severity == "error"] == []
    assert harness.things() == things


def test_each_verb_may_be_repeated_and_the_machine_ends_locked_and_off(harness: Harness) -> None:
    for verb in order(harness):
        harness.do(verb)
        things = harness.things()
        harness.do(verb)
        assert harness.things() == things, verb
    state = harness.seen()
    assert (state.power, state.locked, state.epoch, state.proved_off) == ("off", True, 1, True)
    harness.do("retire")
    harness.do("retire")
    assert harness.silent()
    with harness.open() as source:
        proof = source.prove_stopped(MACHINE, harness.settings())
    assert proof.by == harness.able.proof
    assert proof.seen


@pytest.mark.parametrize("steps", range(5))
def test_the_way_back_leads_from_wherever_it_had_come_to(harness: Harness, steps: int) -> None:
    before = harness.things()
    go(harness, steps)
    harness.do("resume", 2)
    assert harness.works()
    state = harness.seen()
    assert (state.power, state.locked, state.quiesced, state.epoch) == ("on", False, False, 2)
    after = harness.things()
    harness.do("resume", 2)
    assert harness.things() == after
    if "stop" not in order(harness)[:steps]:
        assert after == before
    go(harness, 4, 3)
    assert harness.seen().proved_off


def test_the_way_back_starts_no_machine_that_a_person_switched_off(harness: Harness) -> None:
    harness.pull()
    harness.do("resume")
    assert harness.seen().power == "off"


@pytest.mark.parametrize("steps", range(5))
def test_an_older_ownership_changes_nothing(harness: Harness, steps: int) -> None:
    go(harness, steps, 5)
    harness.do("resume" if steps == 0 else order(harness)[min(steps, len(order(harness))) - 1], 5)
    things, works = harness.things(), harness.seen().power == "on" and not harness.seen().quiesced
    for verb in FENCED:
        if verb == "quiesce" and harness.able.quiesce == "none":
            continue
        with pytest.raises(Superseded):
            harness.do(verb, 4)
        assert harness.things() == things, verb
    assert harness.works() if works else harness.silent()
    assert harness.seen().epoch == 5


def test_what_runs_is_not_proved_off_nor_locked_nor_retired(harness: Harness) -> None:
    things = harness.things()
    for verb in ("prove_stopped", "lock", "retire"):
        with pytest.raises(SourceError):
            harness.do(verb)
    assert harness.things() == things
    assert not harness.seen().locked
    assert harness.works()


def test_a_machine_that_a_person_switched_off_goes_on_from_there(harness: Harness) -> None:
    harness.pull()
    things = harness.things()
    for verb in order(harness):
        assert harness.things() == things, verb
        harness.do(verb)
    assert harness.seen().locked


def test_what_cannot_be_quiesced_says_so(harness: Harness) -> None:
    if harness.able.quiesce != "none":
        pytest.skip("it can")
    things = harness.things()
    with pytest.raises(Unsupported):
        harness.do("quiesce")
    assert harness.things() == things


def test_a_platform_that_is_silent_is_not_off(harness: Harness) -> None:
    harness.cut()
    with pytest.raises(SourceUnavailable):
        harness.seen()
    with pytest.raises(SourceUnavailable):
        harness.do("prove_stopped")
    with pytest.raises(SourceUnavailable):
        harness.do("lock")


@pytest.mark.slow
def test_killed_anywhere_on_the_way_it_goes_on(harness: Harness) -> None:
    """Twice over: before each thing that it does to the platform, and after it."""
    for sign in (1, -1):
        nth, epoch = 1, harness.seen().epoch + 1
        while harness.killed(sign * nth, lambda epoch=epoch: go(harness, 4, epoch)):  # type: ignore[misc]
            go(harness, 4, epoch)
            state = harness.seen()
            assert (state.power, state.locked, state.epoch) == ("off", True, epoch), f"killed at {sign * nth}"
            harness.do("resume", epoch + 1)
            assert harness.works(), f"killed at {sign * nth}"
            nth, epoch = nth + 1, epoch + 2
        assert nth > 3
        harness.do("resume", epoch + 1)


@pytest.mark.slow
def test_killed_anywhere_on_the_way_back_it_works_again(harness: Harness) -> None:
    for sign in (1, -1):
        nth, epoch = 1, harness.seen().epoch + 1
        while True:
            go(harness, 4, epoch)
            killed = harness.killed(sign * nth, lambda epoch=epoch: harness.do("resume", epoch + 1))  # type: ignore[misc]
            harness.do("resume", epoch + 1)
            assert harness.works(), f"killed at {sign * nth}"
            state = harness.seen()
            assert (state.power, state.locked, state.quiesced) == ("on", False, False)
            nth, epoch = nth + 1, epoch + 2
            if not killed:
                break
        assert nth > 3


@pytest.mark.slow
def test_a_conductor_killed_on_the_way_there_may_turn_back(harness: Harness) -> None:
    for sign in (1, -1):
        nth, epoch = 1, harness.seen().epoch + 1
        while harness.killed(sign * nth, lambda epoch=epoch: go(harness, 4, epoch)):  # type: ignore[misc]
            harness.do("resume", epoch + 1)
            assert harness.works(), f"killed at {sign * nth}"
            assert not harness.seen().locked
            nth, epoch = nth + 1, epoch + 2
        harness.do("resume", epoch + 1)
