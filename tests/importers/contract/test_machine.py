"""The contract: machines on staged disks."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from contract.harness import Harness
from pipeline.errors import TargetError, Unsupported
from pipeline.target import Build, Importer, Intent, Place, Purpose, Writing


@pytest.fixture
def layered(builder: Harness) -> Harness:
    """Only of platforms with layers."""
    if builder.abilities.layer == "none":
        pytest.skip("it has no layers")
    return builder


@pytest.fixture
def powered(builder: Harness) -> Harness:
    """Only of platforms that switch machines on and off."""
    if builder.abilities.power != "api":
        pytest.skip("it switches nothing on and off")
    return builder


def built(harness: Harness, importer: Importer, purpose: Purpose = "production") -> tuple[Place, Build]:
    place = harness.staged(importer)
    assert place.stage is not None
    wanted = harness.wanted() if purpose == "production" else harness.wanted().rehearsal()
    build = importer.build(place, place.stage, wanted, purpose)
    return harness.found(importer), build


def test_building_twice_makes_one_machine(builder: Harness) -> None:
    with builder.open() as importer:
        place, first = built(builder, importer)
        assert place.state == ("kept" if builder.abilities.layer == "none" else "layered")
        things = builder.things()
    with builder.open() as importer:
        again = importer.build(place, place.stage, builder.wanted(), "production")  # type: ignore[arg-type]
        assert again == first == builder.found(importer).build
    assert builder.things() == things
    assert (first.marker, first.purpose, first.name, first.booted) == (builder.marker, "production", "vm", False)


def test_a_second_machine_for_another_purpose_is_refused(builder: Harness) -> None:
    with builder.open() as importer:
        place, _build = built(builder, importer)
        assert place.stage is not None
        things = builder.things()
        for wanted, purpose in ((builder.wanted().rehearsal(), "rehearsal"), (builder.wanted(name="x"), "production")):
            with pytest.raises(TargetError):
                importer.build(place, place.stage, wanted, purpose)
        assert builder.things() == things


def test_without_layers_a_rehearsal_is_refused(builder: Harness) -> None:
    if builder.abilities.layer != "none":
        pytest.skip("it has layers")
    with builder.open() as importer:
        place = builder.staged(importer)
        assert place.stage is not None
        with pytest.raises(Unsupported):
            importer.build(place, place.stage, builder.wanted().rehearsal(), "rehearsal")
        assert builder.found(importer).state == "staged"


def test_a_network_that_is_not_there_is_found_before_and_refused_after(builder: Harness) -> None:
    nowhere = builder.wanted(networks={"*": "no-such-network"})
    with builder.open() as importer:
        findings = importer.preflight(builder.point(), nowhere, Intent("production", boots=False))
        errors = [finding for finding in findings if finding.severity == "error"]
        assert any("no-such-network" in f.message and f.remedy for f in errors)
        place = builder.staged(importer)
        assert place.stage is not None
        if builder.abilities.network_at == "build":
            with pytest.raises(TargetError, match="no-such-network"):
                importer.build(place, place.stage, nowhere, "production")
        elif builder.abilities.power == "api":
            build = importer.build(place, place.stage, nowhere, "production")
            with pytest.raises(TargetError, match="no-such-network"):
                importer.boot(build, nowhere.networks)


def test_a_rehearsal_is_cut_off_from_every_network(layered: Harness) -> None:
    with layered.open() as importer:
        _place, build = built(layered, importer, "rehearsal")
        assert build.purpose == "rehearsal"
        assert build.name != layered.wanted().name
        assert len(build.networks) == 1
        assert all(network.name is None for network in build.networks)


def test_who_says_how_much_a_layer_holds_sees_what_the_guest_wrote(layered: Harness) -> None:
    with layered.open() as importer:
        if not isinstance(importer, Writing):
            pytest.skip("it does not say")
        place, build = built(layered, importer)
        before = importer.written(build)
        if before is None:
            pytest.skip("it cannot tell, since a layer is a copy of the disk there")
        layered.ran(importer, place)
        after = importer.written(build)
        assert after is not None
        assert before < after < sum(len(content) for content in layered.sources[1])
        importer.finish(layered.found(importer), build, keep=True)
        assert not importer.written(build), "there is no layer any more"


def test_a_dropped_layer_leaves_the_stage_untouched(layered: Harness) -> None:
    with layered.open() as importer:
        before = layered.staged(importer).stage
        things = layered.things()
        place, build = built(layered, importer, "rehearsal")
        layered.ran(importer, place)
        after = importer.finish(layered.found(importer), build, keep=False)
        assert after == before
        assert importer.check(after) == ""
        assert layered.equals(after, 1)
        assert layered.found(importer).state == "staged"
        assert layered.things() == things
    with layered.open() as importer:
        stage = importer.stage(layered.found(importer), layered.point(2), layered.wanted(2))
        assert layered.equals(stage, 2)
        if layered.abilities.patch != "none":
            assert {disk.mode for disk in stage.disks} == {"refresh"}


def test_a_kept_layer_is_merged_into_the_machines_disks(layered: Harness) -> None:
    with layered.open() as importer:
        place, build = built(layered, importer)
        layered.ran(importer, place)
        written = layered.machine_content(layered.found(importer), 0)
        assert written[: len(layered.sources[1][0])] != layered.sources[1][0], "the guest wrote nothing"
        importer.finish(layered.found(importer), build, keep=True)
        kept = layered.found(importer)
        assert kept.state == "kept"
        assert layered.machine_content(kept, 0) == written
        importer.finish(kept, build, keep=True)
        assert layered.found(importer).state == "kept"
        with pytest.raises(TargetError):
            importer.finish(kept, build, keep=False)


def test_a_machine_is_switched_on_and_off_and_it_is_said(powered: Harness) -> None:
    with powered.open() as importer:
        _place, build = built(powered, importer)
        running = importer.boot(build, powered.wanted().networks)
        assert importer.observe(running).power == "on"
        things = powered.things()
        assert importer.boot(running, powered.wanted().networks).booted
        assert powered.things() == things
        place = powered.found(importer)
        assert place.state == "running"
        assert place.build is not None
        assert place.build.booted
        assert [network.name for network in place.build.networks] == [powered.network]
    with powered.open() as importer:
        assert importer.stop(place.build, seconds=0).power == "off"
        assert importer.stop(place.build, seconds=0).power == "off"
        found = powered.found(importer)
        assert found.state == ("kept" if powered.abilities.layer == "none" else "layered")
        assert found.build is not None
        assert found.build.booted
        importer.remove(powered.marker)
        assert importer.observe(place.build).power == "off"


def test_what_a_platform_cannot_see_or_do_it_says(powered: Harness) -> None:
    abilities = powered.abilities
    with powered.open() as importer:
        _place, build = built(powered, importer)
        build = importer.boot(build, powered.wanted().networks)
        try:
            if "picture" in abilities.console:
                assert (importer.picture(build) or b"").startswith(b"\x89PNG")
            else:
                assert importer.picture(build) is None
            if "command" not in abilities.guest:
                with pytest.raises(Unsupported):
                    importer.command(build, ["true"], seconds=5)
            if "heartbeat" not in abilities.guest:
                assert importer.observe(build).heartbeat is None
        finally:
            importer.stop(build, seconds=0)


def test_what_does_not_lead_on_from_a_state_is_refused_and_changes_nothing(powered: Harness) -> None:
    with powered.open() as importer:
        _place, build = built(powered, importer)
        build = importer.boot(build, powered.wanted().networks)
        running, things = powered.found(importer), powered.things()
        for keep in (True, False):
            with pytest.raises(TargetError):
                importer.finish(running, build, keep=keep)
        if not powered.abilities.stage_while_layered:
            with pytest.raises(TargetError):
                importer.stage(running, powered.point(2), powered.wanted(2))
        assert powered.things() == things
        importer.stop(build, seconds=0)


def test_a_stage_is_refreshed_below_a_machine_where_that_is_declared(layered: Harness) -> None:
    with layered.open() as importer:
        place, build = built(layered, importer)
        if not layered.abilities.stage_while_layered:
            things = layered.things()
            with pytest.raises(TargetError):
                importer.stage(place, layered.point(2), layered.wanted(2))
            assert layered.things() == things
            return
        assert layered.equals(importer.stage(place, layered.point(2), layered.wanted(2)), 2)
        assert importer.finish(layered.found(importer), build, keep=False).sequence == 2


def upto(harness: Harness, state: str) -> None:
    with harness.open() as importer:
        point, wanted = harness.point(), harness.wanted()
        if state == "prepared":
            importer.prepare(point, wanted, harness.marker)
        elif state == "staged":
            harness.staged(importer)
        else:
            _place, build = built(harness, importer)
            if state == "running":
                importer.boot(build, wanted.networks)


@pytest.mark.parametrize("state", ["prepared", "staged", "layered", "running"])
def test_removing_leaves_nothing(builder: Harness, state: str) -> None:
    if state == "running" and builder.abilities.power != "api":
        pytest.skip("it switches nothing on")
    upto(builder, state)
    with builder.open() as importer:
        importer.remove(uuid.uuid4())
        there = bool(builder.things())
        assert importer.remove(builder.marker) is there
        assert builder.things() == []
        assert importer.find(builder.marker) is None
        assert importer.remove(builder.marker) is False


def test_what_was_adopted_is_found_and_let_go_but_never_deleted(builder: Harness) -> None:
    with builder.open() as importer:
        if not builder.abilities.adopts:
            with pytest.raises(Unsupported):
                importer.adopt("anything", builder.marker)
            return
        reference = builder.existing()
        things = builder.things()
        place = importer.adopt(reference, builder.marker)
        assert (place.state, place.adopted) == ("prepared", True)
        assert importer.adopt(reference, builder.marker) == place
        assert builder.found(importer).adopted
        with pytest.raises(TargetError):
            importer.adopt(reference, uuid.uuid4())
        with pytest.raises(TargetError):
            importer.adopt("nothing that exists", builder.marker)
        assert importer.remove(builder.marker)
        assert importer.find(builder.marker) is None
        assert builder.things() == things


def _life(harness: Harness, keep: bool) -> list[Callable[[], None]]:
    """The verbs of a machine's life, each to be called by a fresh importer that asks the platform where it is."""

    def build() -> None:
        with harness.open() as importer:
            place = harness.found(importer)
            if place.state in ("staged", "layered"):
                assert place.stage is not None
                importer.build(place, place.stage, harness.wanted(), "production")

    def boot() -> None:
        with harness.open() as importer:
            place = harness.found(importer)
            assert place.build is not None
            importer.boot(place.build, harness.wanted().networks)

    def stop() -> None:
        with harness.open() as importer:
            place = harness.found(importer)
            assert place.build is not None
            importer.stop(place.build, seconds=0)

    def finish() -> None:
        with harness.open() as importer:
            place = harness.found(importer)
            if place.state == "layered":
                assert place.build is not None
                importer.finish(place, place.build, keep=keep)

    powered = [boot, stop] if harness.abilities.power == "api" else []
    return [build, *powered, *([] if harness.abilities.layer == "none" else [finish])]


@pytest.mark.parametrize("keep", [True, False])
def test_killed_at_any_moment_each_verb_goes_on_and_one_machine_is_there(builder: Harness, keep: bool) -> None:
    with builder.open() as importer:
        builder.staged(importer)
    undisturbed = []
    for verb in _life(builder, keep):
        verb()
        undisturbed.append(builder.things())
    with builder.open() as importer:
        importer.remove(builder.marker)
    for sign in (1, -1):
        with builder.open() as importer:
            builder.staged(importer)
        for number, verb in enumerate(_life(builder, keep)):
            nth = 1
            while builder.killed(sign * nth, verb):
                nth += 1
                assert nth < 100, "it never comes to its end"
            verb()
            assert builder.things() == undisturbed[number], f"after verb {number}"
        with builder.open() as importer:
            importer.remove(builder.marker)
        assert builder.things() == []


def test_killed_while_it_removes_the_rest_is_removed_later(builder: Harness) -> None:
    upto(builder, "layered")

    def remove() -> None:
        with builder.open() as importer:
            importer.remove(builder.marker)

    nth = 1
    while builder.killed(nth, remove):
        nth += 1
        assert nth < 100, "it never comes to its end"
    assert builder.things() == []


def test_after_a_drop_that_was_cut_short_the_next_machine_starts_from_the_stage(layered: Harness) -> None:
    def drop() -> None:
        with layered.open() as importer:
            place = layered.found(importer)
            assert place.build is not None
            importer.finish(place, place.build, keep=False)

    for nth in (1, -1, 2, -2, 3, -3, 4, -4):
        with layered.open() as importer:
            place, _build = built(layered, importer)
            layered.ran(importer, place)
        layered.killed(nth, drop)
        with layered.open() as importer:
            place = layered.found(importer)
            if place.state == "layered":
                assert place.stage is not None
                importer.build(place, place.stage, layered.wanted(), "production")
            else:
                place, _build = built(layered, importer)
            content = layered.machine_content(layered.found(importer), 0)
            importer.remove(layered.marker)
        source = layered.sources[1][0]
        if abs(nth) > 1:  # before, nothing says yet that it is being dropped
            assert content[: len(source)] == source


def test_a_keep_that_was_cut_short_is_completed_and_never_taken_for_a_stage(layered: Harness) -> None:
    def keep() -> None:
        with layered.open() as importer:
            place = layered.found(importer)
            assert place.build is not None
            importer.finish(place, place.build, keep=True)

    for nth in (1, -1, 2, -2, 3, -3):
        with layered.open() as importer:
            place, _build = built(layered, importer)
            layered.ran(importer, place)
            written = layered.machine_content(place, 0)
        layered.killed(nth, keep)
        with layered.open() as importer:
            place = layered.found(importer)
            assert place.build is not None
            importer.finish(place, place.build, keep=True)
            kept = layered.found(importer)
            assert kept.state == "kept"
            assert layered.machine_content(kept, 0) == written
            importer.remove(layered.marker)


def test_a_layer_of_ours_does_not_make_the_stage_below_it_suspect(layered: Harness) -> None:
    with layered.open() as importer:
        place, _build = built(layered, importer)
        assert place.stage is not None
        assert importer.check(place.stage) == ""
        things = layered.things()
    with layered.open() as importer:
        found = layered.found(importer)
        assert found.stage is not None
        assert importer.check(found.stage) == ""
        assert layered.things() == things
