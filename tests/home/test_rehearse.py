"""A rehearsal leaves nothing but what it found out."""

from __future__ import annotations

import pytest

from home.conftest import Home, Make
from home.test_bring import GOOD, says
from pipeline.errors import BootError, Cancelled, NotReady, TargetBusy
from pipeline.target import Build, Importer


def can_rehearse(home: Home) -> bool:
    return home.abilities.layer != "none" and home.abilities.power == "api"


def test_the_machine_is_tried_out_apart_and_the_stage_stays_as_it_was(any_home: Home) -> None:
    seen: list[tuple[str, list[str | None]]] = []

    def look(importer: Importer, build: Build, _fresh: bool) -> object:
        [machine] = any_home.platform.machines.values()
        seen.append((machine.name, machine.networks))
        assert importer.observe(build).power == "on"
        return GOOD

    if not can_rehearse(any_home):
        with pytest.raises(NotReady) as caught:
            any_home.rehearse(verify=look)  # type: ignore[arg-type]
        assert "rehearse on another target" in caught.value.remedy
        assert any_home.things() == []
        return
    arrival = any_home.rehearse(verify=look)  # type: ignore[arg-type]
    assert seen == [("vm-rehearsal", [None])]
    assert not arrival.running
    assert any_home.things() == ["stage 0"]
    [staged] = any_home.disks("stage")
    assert bytes(staged.data[: len(any_home.sources[1])]) == any_home.sources[1]
    [disk] = any_home.bring(2).disks
    assert disk.mode == ("hashed" if any_home.abilities.patch == "none" else "refresh"), "the chain is broken"


def test_what_does_not_pass_is_thrown_away_as_well(home: Home) -> None:
    arrival = home.rehearse(verify=says("no"))
    assert arrival.verdict is not None
    assert not arrival.verdict.verified
    assert home.things() == ["stage 0"]
    home.platform.guest = "halts"
    with pytest.raises(BootError):
        home.rehearse()
    assert home.things() == ["stage 0"]
    home.platform.guest = "hangs"
    home.rehearse()
    assert home.things() == ["stage 0"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError, Cancelled])
def test_whatever_ends_it_nothing_is_left_running(home: Home, error: type[BaseException]) -> None:
    def interrupted(_importer: Importer, _build: Build, _fresh: bool) -> object:
        if error is Cancelled:
            home.control.cancel()
            home.control.check()
        raise error

    with pytest.raises(error):
        home.rehearse(verify=interrupted)  # type: ignore[arg-type]
    assert home.things() == ["stage 0"]


def test_a_machine_for_production_that_was_switched_on_is_not_touched(home: Home) -> None:
    home.bring()
    home.rehearse()
    assert home.things() == ["stage 0"], "a machine that was never on is built again when it is needed"
    home.bring(boot=True)
    things = home.things()
    with pytest.raises(TargetBusy):
        home.rehearse()
    assert home.things() == things


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_killed_at_any_moment_the_same_command_leaves_nothing(any_home: Home, after: bool, elsewhere: bool) -> None:
    if not can_rehearse(any_home):
        pytest.skip("it has no rehearsals")
    action = any_home.try_out if elsewhere else any_home.rehearse
    nth = 1
    while any_home.killed(nth, action, after=after):
        nth += 1
        assert nth < 200, "it never comes to its end"
        if nth % 7 == 0:
            action()
    action()
    assert any_home.things() == ([] if elsewhere else ["stage 0"])


def test_trying_out_leaves_the_machine_at_home_alone(home: Home) -> None:
    home.bring(1, boot=True)
    things = home.things()
    for sequence in (1, 2):
        assert home.try_out(sequence, verify=says()).verdict is GOOD
        assert home.things() == things
    assert not (home.state / "places" / "simulated" / home.marker("verify")).exists()


def test_trying_out_needs_no_second_copy_where_the_stage_at_home_is_of_that_point(home: Home) -> None:
    home.rehearse(2)
    calls = len(home.platform.calls)
    home.try_out(2)
    assert "create_disk" not in home.platform.calls[calls:]
    home.try_out(1)
    assert home.platform.calls[calls:].count("create_disk") == 1
    assert home.things() == ["stage 0"]
    place = home.place()
    assert place is not None
    assert place.stage is not None
    assert place.stage.sequence == 2


def test_trying_out_what_does_not_start_leaves_nothing(home: Home) -> None:
    home.platform.guest = "halts"
    with pytest.raises(BootError):
        home.try_out()
    assert home.things() == []


def test_a_second_try_after_a_cut_goes_on_with_what_is_staged(home: Home) -> None:
    def interrupted(_importer: Importer, _build: Build, _fresh: bool) -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        home.try_out(verify=interrupted)  # type: ignore[arg-type]
    assert home.things() == ["stage 0"]
    [disk] = home.try_out().disks
    assert disk.mode == "unchanged"
    assert home.things() == []


def test_an_agent_driven_target_has_no_rehearsal(make: Make) -> None:
    home = make("like a transition host")
    with pytest.raises(NotReady, match="no layer"):
        home.try_out()
