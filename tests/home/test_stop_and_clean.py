"""Stopping decides about what a machine wrote; cleaning takes away what dead commands left, and nothing else."""

from __future__ import annotations

import shutil

import pytest
from simulators.platform import WRITES

from home.conftest import Home, Make
from home.test_bring import GOOD
from pipeline.errors import CatalogueError, TargetBusy, Unsupported
from pipeline.target import Build, Importer


def test_a_stopped_machine_is_started_again_with_what_it_wrote(home: Home) -> None:
    home.bring(boot=True)
    assert home.stop().was_running
    assert not home.stop().was_running
    assert home.bring(boot=True).running
    [machine] = home.platform.machines.values()
    assert machine.starts == 2


def test_one_that_hangs_is_stopped_hard(home: Home) -> None:
    home.platform.guest = "hangs"
    home.bring(boot=True)
    assert home.stop().seen.reason == "power was cut"


def test_what_was_dropped_is_gone_and_the_stage_is_as_it_was(home: Home) -> None:
    home.bring(boot=True)
    home.stop("drop")
    assert home.things() == ["stage 0"]
    [staged] = home.disks("stage")
    assert bytes(staged.data[: len(home.sources[1])]) == home.sources[1]


def test_what_was_kept_is_in_the_machines_disks_for_good(home: Home) -> None:
    home.bring(boot=True)
    home.stop("keep")
    home.stop("keep")
    place = home.place()
    assert place is not None
    assert place.state == "kept"
    [machine] = home.platform.machines.values()
    assert bytes(home.platform.disks[machine.disks[0]].data).startswith(WRITES)
    with pytest.raises(Unsupported, match="no layer"):
        home.stop("drop")
    with pytest.raises(TargetBusy, match="may hold newer data"):
        home.bring(2)
    assert home.bring(boot=True).running


def test_where_there_is_no_machine_or_no_switch_it_is_said(home: Home, make: Make) -> None:
    with pytest.raises(CatalogueError, match="no machine vm at simulated") as caught:
        home.stop()
    assert "failback import vm" in caught.value.remedy
    assert home.clean() == home.clean(machine="vm", target="simulated") == []
    assert list((home.state / "places").glob("*/*")) == []


def test_a_machine_that_only_its_guest_can_stop_is_left_on(make: Make) -> None:
    home = make("like a transition host")
    home.bring(boot=True)
    with pytest.raises(Unsupported, match="cannot switch machines off"):
        home.stop()
    assert "machine vm on" in home.things()


def actions(home: Home, **more: object) -> dict[str, str]:
    return {left.name: left.action for left in home.clean(**more)}


def test_half_made_disks_are_removed_after_saying_so(home: Home) -> None:
    assert home.killed(4, home.bring)
    things = home.things()
    assert actions(home, dry_run=True) == {"vm/import": "remove"}
    assert home.things() == things
    [left] = home.clean()
    assert "left by import vm@1" in left.what
    assert home.things() == []
    assert home.clean() == []


def test_a_dead_rehearsal_is_dropped_and_its_stage_stays(home: Home) -> None:
    home.rehearse(1)
    calls = len(home.platform.calls)
    home.rehearse(1)
    power_on = home.platform.calls[calls:].index("power_on") + 1
    assert home.killed(power_on, home.rehearse, after=True)
    assert "machine vm-rehearsal on" in home.things()
    assert actions(home) == {"vm/import": "drop"}
    assert home.things() == ["stage 0"]


def test_what_a_dead_verification_left_is_removed(home: Home) -> None:
    home.bring(boot=True)
    things = home.things()
    for nth in range(2, 9):
        assert home.killed(nth, lambda: home.try_out(2))
        assert actions(home) == {"vm/import": "none", "vm/verify": "remove"}
        assert home.things() == things


@pytest.mark.parametrize("boot", [False, True])
def test_what_is_whole_stays_even_after_a_refresh_was_killed(home: Home, boot: bool) -> None:
    home.bring(1, boot=boot)
    things = home.things()
    assert actions(home) == {"vm/import": "none"}
    assert home.things() == things
    if not boot:
        assert home.killed(8, lambda: home.bring(2))
        staged = [disk.id for disk in home.disks("stage")]
        assert actions(home) == {"vm/import": "none"}
        assert [disk.id for disk in home.disks("stage")] == staged


def test_what_a_command_works_on_is_not_touched(home: Home) -> None:
    seen = {}

    def meanwhile(_importer: Importer, _build: Build, _fresh: bool) -> object:
        seen.update({left.name: (left.action, left.what) for left in home.clean()})
        return GOOD

    home.rehearse(verify=meanwhile)  # type: ignore[arg-type]
    assert seen["vm/import"][0] == "held"
    assert "rehearsal of vm@1" in seen["vm/import"][1]


def test_everything_is_removed_only_when_asked_and_only_when_off(home: Home) -> None:
    home.bring(boot=True)
    with pytest.raises(TargetBusy, match="vm runs at simulated") as caught:
        home.clean(machine="vm", target="simulated", everything=True)
    assert "failback stop vm" in caught.value.remedy
    home.stop()
    assert actions(home, machine="vm", target="simulated", everything=True)["vm/import"] == "remove"
    assert home.things() == []
    assert not (home.state / "places" / "simulated" / home.marker()).exists()


def test_the_only_copy_of_what_a_machine_wrote_is_removed_only_by_force(home: Home) -> None:
    home.bring(boot=True)
    home.stop("keep")
    things = home.things()
    with pytest.raises(TargetBusy, match="the only copy") as caught:
        home.clean(machine="vm", target="simulated", everything=True)
    assert "--force" in caught.value.remedy
    assert home.things() == things
    assert actions(home, machine="vm", target="simulated", everything=True, kept_too=True)["vm/import"] == "remove"
    assert home.things() == []


def test_only_the_machine_and_target_that_were_named_are_looked_at(home: Home) -> None:
    assert home.killed(4, home.bring)
    assert home.clean(machine="other") == []
    assert home.clean(target="elsewhere") == []
    assert actions(home, machine="vm") == {"vm/import": "remove"}


def test_what_is_left_is_found_on_the_platform_when_this_host_forgot_it(home: Home) -> None:
    assert home.killed(4, home.bring)
    assert home.killed(4, home.try_out)
    assert len(home.things()) == 2
    shutil.rmtree(home.state / "places")
    assert home.clean() == []
    found = actions(home, machine="vm", target="simulated")
    assert found == {"vm/import": "remove", "vm/verify": "remove"}
    assert home.things() == []
    assert list((home.state / "places" / "simulated").iterdir()) == []


def test_another_repositorys_places_are_left_alone(home: Home, make: Make) -> None:
    assert home.killed(4, home.bring)
    things = home.things()
    folder = home.state / "places" / "simulated" / home.marker() / "place.json"
    folder.write_text(folder.read_text().replace(home.bench.repository.document.id, "0" * 32))
    assert home.clean() == []
    assert home.things() == things


def test_a_damaged_record_is_no_record(home: Home) -> None:
    home.bring()
    folder = home.state / "places" / "simulated" / home.marker()
    (folder / "place.json").write_text('{"repository": 5}')
    assert home.clean() == []
    home.bring()
    assert actions(home) == {"vm/import": "none"}
