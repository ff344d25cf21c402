"""The contract: disks."""

from __future__ import annotations

import pytest

from contract.harness import SIZES, Harness
from pipeline.errors import Cancelled
from pipeline.home.control import Controller
from pipeline.target import Intent, Place


def test_what_it_can_do_does_not_contradict_itself(harness: Harness) -> None:
    abilities = harness.abilities
    assert abilities.granule % 512 == 0
    assert abilities.size_step % 512 == 0
    assert not (abilities.stage_while_layered and abilities.layer == "none")


def test_a_ready_platform_has_no_errors_beforehand_and_nothing_is_changed_by_looking(harness: Harness) -> None:
    boots = harness.abilities.machines and harness.abilities.power != "none"
    with harness.open() as importer:
        findings = importer.preflight(harness.point(), harness.wanted(), Intent("production", boots=boots))
        assert [f for f in findings if f.severity == "error"] == []
        assert [f for f in importer.examine() if f.severity == "error"] == []
        assert importer.find(harness.marker) is None
        importer.forecast(None, harness.point(), harness.wanted())
    assert harness.things() == []


def test_preparing_twice_makes_one_place(harness: Harness) -> None:
    with harness.open() as importer:
        first = importer.prepare(harness.point(), harness.wanted(), harness.marker)
    once = harness.things()
    with harness.open() as importer:
        again = importer.prepare(harness.point(), harness.wanted(), harness.marker)
    assert harness.things() == once
    assert (first.marker, first.machine, first.state) == (again.marker, again.machine, again.state)
    assert again.machine == "vm"


def stage(harness: Harness, sequence: int) -> list[tuple[str, int]]:
    """How each disk came to equal the point, and how much was written."""
    point, wanted = harness.point(sequence), harness.wanted(sequence)
    with harness.open() as importer:
        place = importer.prepare(point, wanted, harness.marker)
        done = importer.stage(place, point, wanted)
        assert (done.machine, done.sequence, done.complete) == ("vm", sequence, True)
        assert [disk.number for disk in done.disks] == list(range(len(SIZES)))
        assert [disk.digest for disk in done.disks] == [disk.digest for disk in point.manifest.disks]
        assert all(disk.proof for disk in done.disks)
        assert importer.check(done) == ""
        assert harness.equals(done, sequence)
    return [(disk.mode, disk.counters.written) for disk in done.disks]


def test_staged_disks_equal_the_point(harness: Harness) -> None:
    stage(harness, 2)


def test_staging_the_same_point_again_moves_nothing(harness: Harness) -> None:
    stage(harness, 1)
    things = harness.things()
    assert stage(harness, 1) == [("unchanged", 0), ("unchanged", 0)]
    assert harness.things() == things


@pytest.mark.parametrize("way", [(1, 2), (2, 1)])
def test_a_refreshed_stage_equals_a_full_one(harness: Harness, way: tuple[int, int]) -> None:
    full = stage(harness, way[0])
    things = harness.things()
    refreshed = stage(harness, way[1])
    assert harness.things() == things, "the earlier disks are gone, or are these"
    if harness.abilities.patch != "none":
        assert all(mode == "refresh" for mode, _ in refreshed)
        assert sum(written for _, written in refreshed) < sum(written for _, written in full)


def test_a_broken_guard_is_seen_and_the_disks_are_hashed_again(harness: Harness) -> None:
    stage(harness, 1)
    with harness.open() as importer:
        place = importer.prepare(harness.point(), harness.wanted(), harness.marker)
        before = importer.stage(place, harness.point(), harness.wanted())
        harness.scribble(before, 0)
        assert importer.check(before), "somebody wrote, and it was not seen"
        if importer.abilities.machines:
            found = harness.found(importer).stage
            assert found is None or importer.check(found), "what is found is given out for what was proved"
    modes = [mode for mode, _ in stage(harness, 1)]
    assert modes[0] in ("hashed", "full")


def test_a_forecast_writes_nothing_and_knows_what_is_there(harness: Harness) -> None:
    with harness.open() as importer:
        disks = importer.forecast(None, harness.point(2), harness.wanted(2))
        assert harness.things() == []
        full = sum(disk.to_move for disk in disks)
        assert full == sum(disk.live_bytes for disk in harness.point(2).manifest.disks)
    stage(harness, 1)
    with harness.open() as importer:
        place = importer.find(harness.marker)
        before = harness.things()
        assert sum(d.to_move for d in importer.forecast(place, harness.point(1), harness.wanted(1))) == 0
        if harness.abilities.patch != "none":
            assert 0 < sum(d.to_move for d in importer.forecast(place, harness.point(2), harness.wanted(2))) < full
        assert harness.things() == before
    assert stage(harness, 1) == [("unchanged", 0), ("unchanged", 0)]


def test_a_place_is_found_in_the_state_it_is_in_and_survives_as_json(builder: Harness) -> None:
    with builder.open() as importer:
        importer.prepare(builder.point(), builder.wanted(), builder.marker)
        place = importer.find(builder.marker)
        assert place is None or place.state == "prepared"
        place = builder.staged(importer)
        assert (place.state, place.machine, place.marker) == ("staged", "vm", builder.marker)
        assert place.stage is not None
        assert (place.stage.machine, place.stage.sequence) == ("vm", 1)
        assert importer.check(place.stage) == ""
        assert Place.from_json(place.to_json()) == place
    with builder.open() as importer:
        assert importer.find(builder.marker) == place


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_cancelled_stage_ends_and_goes_on(harness: Harness, after: int) -> None:
    class Impatient(Controller):
        checks = 0

        def check(self) -> None:
            self.checks += 1
            if self.checks >= after:
                self.cancel()
            super().check()

    point, wanted = harness.point(), harness.wanted()
    try:
        with harness.open(Impatient()) as importer:
            importer.stage(importer.prepare(point, wanted, harness.marker), point, wanted)
    except Cancelled:
        pass
    else:
        assert after > 1, "it does not ask whether it shall end"
    stage(harness, 1)


@pytest.mark.parametrize("sequence", [1, 2])
def test_killed_at_any_moment_staging_goes_on_to_the_same_disks(harness: Harness, sequence: int) -> None:
    """From nothing, and in the middle of a refresh."""
    stage(harness, 1)
    stage(harness, sequence)
    things = harness.things()
    with harness.open() as importer:
        importer.remove(harness.marker)

    def whole() -> None:
        point, wanted = harness.point(sequence), harness.wanted(sequence)
        with harness.open() as importer:
            importer.stage(importer.prepare(point, wanted, harness.marker), point, wanted)

    nth = 0
    while True:
        nth += 1
        if sequence == 2:
            stage(harness, 1)
        killed = [harness.killed(sign * nth, whole) for sign in (1, -1)]
        stage(harness, sequence)
        assert harness.things() == things
        if not any(killed):
            break
        with harness.open() as importer:
            importer.remove(harness.marker)
    assert nth > 2, "nothing was killed"
