"""A machine comes home, by the same command however often and whatever happened before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from simulators.platform import WRITES

from home.conftest import Home, Make
from pipeline.errors import BootError, Cancelled, NotReady, PlaceHeld, TargetBusy, UsageError
from pipeline.home.arrival import Verify
from pipeline.home.folder import Places
from pipeline.target import Build, Importer
from pipeline.verify.results import Results


def says(why: str = "") -> Verify:
    def verify(importer: Importer, build: Build, _fresh: bool) -> Results:
        assert importer.observe(build).power == "on"
        return Results("vm", (), 0.1, ended=why or "unknown") if why else GOOD

    return verify


class _Good:
    verified = True
    why = ""


GOOD = _Good()


def can_boot(home: Home) -> bool:
    return home.abilities.power != "none"


def test_the_disks_are_those_of_the_point_and_the_machine_is_built_and_off(any_home: Home) -> None:
    arrival = any_home.bring(2)
    assert [disk.digest for disk in arrival.disks] == [d.digest for d in any_home.bench.point(2).manifest.disks]
    place = any_home.place()
    assert place is not None
    assert place.state == ("kept" if any_home.abilities.layer == "none" else "layered")
    assert place.build == arrival.build
    assert not arrival.running
    [staged] = any_home.disks("stage")
    assert bytes(staged.data[: len(any_home.sources[2])]) == any_home.sources[2]


def test_the_same_command_again_gives_the_same_machine(any_home: Home) -> None:
    boot = can_boot(any_home)
    first = any_home.bring(boot=boot)
    things = any_home.things()
    again = any_home.bring(boot=boot)
    assert again.build == first.build
    assert any_home.things() == things
    [machine] = any_home.platform.machines.values()
    assert machine.starts == boot


def test_a_built_machine_is_switched_on_by_asking_for_it(any_home: Home) -> None:
    any_home.bring()
    if not can_boot(any_home):
        with pytest.raises(NotReady, match="cannot switch machines on"):
            any_home.bring(boot=True)
        return
    arrival = any_home.bring(boot=True)
    assert arrival.running
    assert arrival.build is not None
    assert arrival.build.booted
    [machine] = any_home.platform.machines.values()
    assert (machine.on, machine.networks, machine.name) == (True, ["lan"], "vm")


def test_a_later_point_refreshes_what_was_never_switched_on(any_home: Home) -> None:
    any_home.bring(1)
    if any_home.abilities.layer == "none":
        with pytest.raises(TargetBusy, match="may hold newer data") as caught:
            any_home.bring(2)
        assert "clean vm" in caught.value.remedy
        return
    things = any_home.things()
    [disk] = any_home.bring(2).disks
    assert disk.mode == ("hashed" if any_home.abilities.patch == "none" else "refresh")
    assert any_home.things() == things
    [staged] = any_home.disks("stage")
    assert bytes(staged.data[: len(any_home.sources[2])]) == any_home.sources[2]


def test_a_machine_that_was_switched_on_is_not_replaced_by_a_later_point(home: Home) -> None:
    home.bring(1, boot=True)
    for _ in range(2):
        things = home.things()
        with pytest.raises(TargetBusy, match="was started at simulated from vm@1") as caught:
            home.bring(2)
        assert "failback stop vm --to simulated --drop" in caught.value.remedy
        assert home.things() == things
        home.stop()  # it may still hold what its users wrote
    home.stop("drop")
    assert home.bring(2).disks[0].mode == "refresh"


def test_a_changed_mapping_is_followed_until_the_machine_was_switched_on(home: Home) -> None:
    home.bring()
    [first] = home.platform.machines
    home.map(name="renamed")
    home.bring()
    [second] = home.platform.machines.values()
    assert second.id != first
    assert second.name == "renamed"
    home.bring(boot=True)
    home.map(name="again")
    assert home.bring(boot=True).build.name == "renamed"  # type: ignore[union-attr]
    assert [m.id for m in home.platform.machines.values()] == [second.id]


def test_a_machine_is_never_started_on_disks_that_somebody_wrote_to_after_it_was_built(home: Home) -> None:
    home.bring()
    [stage] = home.disks("stage")
    home.platform.scribble(stage.id, 100, b"somebody was here")
    assert home.bring(boot=True).disks[0].mode == "hashed"
    [stage] = home.disks("stage")
    assert bytes(stage.data[: len(home.sources[1])]) == home.sources[1]
    [machine] = home.platform.machines.values()
    assert (machine.on, machine.starts) == (True, 1)


def test_a_machine_that_was_started_before_is_started_again_with_a_word_about_disks_that_were_changed(
    home: Home,
) -> None:
    assert not home.bring(boot=True, verify=says("not yet")).running
    [stage] = home.disks("stage")
    home.platform.scribble(stage.id, 100, b"somebody was here")
    home.told.clear()
    assert home.bring(boot=True).running
    assert any("not as they were staged" in text for text in home.told)
    [machine] = home.platform.machines.values()
    assert (machine.on, machine.starts) == (True, 2)


def test_what_passes_its_checks_is_left_running_and_what_fails_is_stopped(home: Home) -> None:
    failed = home.bring(boot=True, verify=says("the shop does not answer"))
    assert failed.verdict is not None
    assert (failed.running, failed.verdict.verified) == (False, False)
    place = home.place()
    assert place is not None
    assert place.state == "layered"
    assert home.bring(boot=True, verify=says("still not"), keep_running=True).running
    assert home.bring(boot=True, verify=says()).running
    [machine] = home.platform.machines.values()
    assert (machine.on, machine.starts) == (True, 2)


def test_a_verification_is_told_whether_the_machine_was_only_just_switched_on(home: Home) -> None:
    told: list[bool] = []

    def verify(_importer: Importer, _build: Build, fresh: bool) -> _Good:
        told.append(fresh)
        return GOOD

    home.bring(boot=True, verify=verify)
    home.bring(boot=True, verify=verify)
    home.stop()
    home.bring(boot=True, verify=verify)
    home.try_out(verify=verify)
    assert told == [True, False, True, True]


def test_a_command_that_came_to_its_end_leaves_no_word_of_what_it_did(home: Home) -> None:
    folder = Places(home.state).of("simulated", uuid.UUID(home.marker()))
    home.killed(3, home.bring)
    assert folder.record is not None
    assert (folder.record.name, folder.record.doing, folder.record.whole) == ("vm/import", "import vm@1", False)
    for command in (home.bring, home.rehearse, home.bring, home.stop):
        command()
        assert (folder.record.doing, folder.record.whole) == ("", True)


def test_a_machine_that_goes_off_at_once_is_an_error_that_says_why(home: Home) -> None:
    home.platform.guest = "halts"
    with pytest.raises(BootError, match="the guest switched itself off") as caught:
        home.bring(boot=True)
    assert "starting" in caught.value.remedy
    assert caught.value.exit_code == 12
    home.platform.guest = "works"
    assert home.bring(boot=True).running


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"networks": {"*": "nowhere"}}, "no network nowhere"),
        ({"networks": {"other": "lan"}}, "is not in the mapping"),
        ({"memory": "16MiB"}, "too little"),
        ({"disks": {3: {"bus": "sata"}}}, "names disk 3"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_made(home: Home, said: dict[str, object], message: str) -> None:
    home.map(**said)
    with pytest.raises(NotReady, match=message) as caught:
        home.bring(boot=True)
    assert caught.value.remedy
    assert caught.value.exit_code == 11
    assert home.platform.calls == []
    assert not (home.state / "places").exists()


def test_all_that_is_wrong_is_said_at_once(home: Home) -> None:
    home.map(memory="16MiB", networks={"*": "nowhere"})
    with pytest.raises(NotReady, match="too little") as caught:
        home.bring()
    assert "no network nowhere" in str(caught.value)


def test_doubts_stop_nobody(home: Home) -> None:
    home.map(memory="128MiB")
    assert [finding.subject for finding in home.bring().findings] == ["memory"]


@pytest.mark.parametrize(
    ("changed", "more", "message"),
    [
        ({"instant": False}, {"instant": True}, "before its disks are whole"),
        ({"max_disk": 1 << 20}, {}, "takes 1048576 at most"),
        ({"power": "none"}, {"boot": True}, "cannot switch machines on"),
    ],
)
def test_what_a_platform_cannot_do_is_found_before_anything_is_made(
    make: Make, changed: dict[str, object], more: dict[str, bool], message: str
) -> None:
    home = make(**changed)
    with pytest.raises(NotReady, match=message):
        home.bring(**more)
    assert home.platform.calls == []


def test_an_instant_machine_is_brought_home_again_when_its_disks_are_filled(make: Make) -> None:
    home = make("children under snapshots")
    assert not home.bring(boot=True, instant=True).stage.complete
    assert home.bring(boot=True, instant=True).running
    assert len(home.platform.machines) == 1


def test_two_commands_on_one_machine_are_refused_and_say_who_works(home: Home, tmp_path: Path) -> None:
    seen: list[str] = []

    def meanwhile(importer: Importer, build: Build, _fresh: bool) -> _Good:
        for action in (home.bring, home.rehearse, home.stop):
            with pytest.raises(PlaceHeld) as caught:
                action()
            seen.append(str(caught.value))
        return GOOD

    home.bring(boot=True, verify=meanwhile)
    assert all(f"vm/import: held by pid {os.getpid()} (import vm@1)" in text for text in seen)
    assert len(seen) == 3


def test_a_lock_ends_with_the_process_that_held_it(home: Home) -> None:
    home.bring()
    folder = home.state / "places" / "simulated" / home.marker()
    code = (
        "import sys, pathlib\nfrom pipeline.home.folder import PlaceFolder\n"
        "with PlaceFolder(pathlib.Path(sys.argv[1])).held('import'):\n print('held', flush=True)\n sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, folder], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(PlaceHeld, match=f"held by pid {other.pid}"):
            home.bring()
        other.send_signal(signal.SIGKILL)
        other.wait()
    home.bring()


def test_where_the_disks_are_is_remembered(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    outs: list[Path | None] = []
    opened = home._open
    monkeypatch.setattr(
        "pipeline.home.site.open_importer",
        lambda target, context: (outs.append(context.out), opened(target, context))[1],
    )
    ground = home.ground
    monkeypatch.setattr(Home, "ground", replace(ground, out=tmp_path / "here"))
    home.bring()
    monkeypatch.setattr(Home, "ground", ground)
    home.bring()
    assert outs == [tmp_path / "here", tmp_path / "here"]
    monkeypatch.setattr(Home, "ground", replace(ground, out=tmp_path / "there"))
    with pytest.raises(UsageError, match="has its disks in"):
        home.bring()


def test_cancelled_it_ends_and_goes_on(home: Home) -> None:
    home.control.cancel()
    with pytest.raises(Cancelled):
        home.bring()
    home.control.__init__()  # type: ignore[misc]
    home.bring()
    assert len(home.platform.disks) == 2


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_moment_the_same_command_brings_one_machine(any_home: Home, after: bool) -> None:
    boot = any_home.abilities.power == "api"

    def bring() -> None:
        any_home.bring(2, boot=boot)

    any_home.bring(1)
    if any_home.abilities.layer == "none":
        any_home.clean(machine="vm", target="simulated", everything=True)
    nth = 1
    while any_home.killed(nth, bring, after=after):
        nth += 1
        assert nth < 200, "it never comes to its end"
    assert nth > 3
    bring()
    disks = ["stage 0"] if any_home.abilities.layer == "none" else ["layer 0", "stage 0"]
    assert any_home.things() == sorted([*disks, f"machine vm {'on' if boot else 'off'}"])
    [staged] = any_home.disks("stage")
    source = any_home.sources[2]
    if any_home.abilities.layer == "none" and boot:
        source = WRITES + source[len(WRITES) :]
    assert bytes(staged.data[: len(source)]) == source
