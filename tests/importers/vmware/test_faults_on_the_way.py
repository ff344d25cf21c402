"""What goes wrong between us and vSphere: the same command goes on, or says why not; one machine, nothing left over."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from simulators.vsphere_server import VSphere

# The harness of the contract suite beside us.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract.vmware import VmwareHarness, VmwareWorkerHarness

from importers.vmware import staging
from pipeline.errors import TargetError, TargetFull, TargetUnavailable
from pipeline.target import Stage

KIB = 1 << 10


@pytest.fixture
def harness(tmp_path: Path, server: VSphere, monkeypatch: pytest.MonkeyPatch) -> VmwareHarness:
    monkeypatch.setattr(staging, "PAUSES", (0.1, 0.1))
    return VmwareHarness(tmp_path, server)


def stage(harness: VmwareHarness, sequence: int = 1) -> Stage:
    """A command of its own."""
    point, wanted = harness.point(sequence), harness.wanted(sequence)
    with harness.open() as importer:
        return importer.stage(importer.prepare(point, wanted, harness.marker), point, wanted)


def is_whole(harness: VmwareHarness) -> None:
    """Staging again moves nothing, and there is one machine with two disks."""
    assert [disk.mode for disk in stage(harness).disks] == ["unchanged", "unchanged"]
    assert harness.equals(stage(harness), 1)
    things = harness.things()
    assert [thing.partition(" ")[0] for thing in things] == ["disk", "disk", "machine"]


@pytest.mark.parametrize(
    ("method", "action", "more"),
    [
        ("nfc", "cut", {"at": 200 * KIB}),
        ("nfc", "status", {"status": 503}),
        ("lease", "fault", {"at": 1, "fault": "InvalidState"}),
        ("ImportVApp", "lose", {}),
        ("ImportVApp", "cut", {}),
        ("HttpNfcLeaseComplete", "lose", {}),
        ("ReconfigVM_Task", "lose", {}),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_an_import_that_is_disturbed_once_is_whole_in_the_end(
    harness: VmwareHarness, server: VSphere, method: str, action: str, more: dict[str, Any]
) -> None:
    server.rule(method, action, **more)
    with contextlib.suppress(TargetUnavailable):
        stage(harness)
    server.clear_rules()
    if not _staged(harness):
        stage(harness)
    is_whole(harness)


def _staged(harness: VmwareHarness) -> bool:
    with harness.open() as importer:
        place = importer.find(harness.marker)
        return place is not None and place.stage is not None


def test_a_session_that_is_ended_from_outside_is_opened_again(harness: VmwareHarness, server: VSphere) -> None:
    point, wanted = harness.point(), harness.wanted()
    with harness.open() as importer:
        place = importer.prepare(point, wanted, harness.marker)
        assert importer.find(harness.marker) is None
        server.end_sessions()
        importer.stage(place, point, wanted)
    is_whole(harness)


def test_a_full_datastore_is_told_and_nothing_is_left(harness: VmwareHarness, server: VSphere) -> None:
    server.resize("LocalDS_0", 600 * KIB)
    with pytest.raises(TargetError) as caught:
        stage(harness)
    assert isinstance(caught.value, TargetFull), caught.value.message
    assert "LocalDS_0" in caught.value.message or "space" in caught.value.message.lower()
    server.resize("LocalDS_0", 1 << 40)
    stage(harness)
    is_whole(harness)


def test_a_host_that_cannot_be_reached_is_named(harness: VmwareHarness, server: VSphere) -> None:
    server.set_host(reachable=False)
    with pytest.raises(TargetUnavailable, match=r"127\.0\.0\.2"):
        stage(harness)
    server.set_host(reachable=True)
    stage(harness)
    is_whole(harness)


@pytest.mark.parametrize("method", ["CreateSnapshot_Task", "PowerOnVM_Task", "RevertToSnapshot_Task"])
def test_a_lost_answer_makes_no_second_layer_and_no_second_start(
    harness: VmwareHarness, server: VSphere, method: str
) -> None:
    with harness.open() as importer:
        place = harness.staged(importer)
        assert place.stage is not None
        rehearsal = harness.wanted().rehearsal()
        server.rule(method, "lose")
        for attempt in range(2):
            try:
                build = importer.build(harness.found(importer), place.stage, rehearsal, "rehearsal")
                build = importer.boot(build, build.networks)
                importer.stop(build, seconds=0)
                importer.finish(harness.found(importer), build, keep=False)
                break
            except TargetUnavailable:
                assert attempt == 0, "the second time nothing is lost"
                found = harness.found(importer)
                if found.state == "running" and found.build is not None:
                    importer.stop(found.build, seconds=0)
        assert harness.found(importer).state == "staged"
        assert harness.equals(place.stage, 1)
    server.clear_rules()
    assert [thing.partition(" ")[0] for thing in harness.things()] == ["disk", "disk", "machine"]


@pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")
@pytest.mark.parametrize("skip", range(4))
def test_a_lost_answer_while_a_worker_writes_costs_nothing_but_the_next_try(
    tmp_path: Path, server: VSphere, skip: int
) -> None:
    """Marking, plugging in, unplugging, marking: whichever answer is lost, the disks are refreshed, not read again."""
    with contextlib.ExitStack() as stack:
        harness = VmwareWorkerHarness(tmp_path, server, stack)
        stage(harness)
        server.rule("ReconfigVM_Task", "lose", skip=skip)
        with contextlib.suppress(TargetUnavailable):
            stage(harness, 2)
        server.clear_rules()
        done = stage(harness, 2)
        assert {disk.mode for disk in done.disks} <= {"refresh", "unchanged"}
        assert harness.equals(done, 2)
        assert [thing.partition(" ")[0] for thing in harness.things()] == ["disk", "disk", "machine"]
