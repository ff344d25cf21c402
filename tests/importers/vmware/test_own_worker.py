"""A worker of failback's own making, as one whole run: imported from its image, told its code by `guestinfo`, booted in
QEMU, it writes what the stand-in plugs into it while it runs; and the machine that it wrote boots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
from agent.conftest import worker_disk
from servers import Server
from simulators.vsphere_server import VSphere, run_vsphere

from importers.vmware.worker import SETTINGS
from pipeline.place import Stage
from vmware.own_worker import OwnWorkerHarness
from vmware.test_guest import GuestHarness, until_ready

__all__ = ["worker_disk"]
"""A fixture of another part."""
_TOOLS = ("qemu-system-x86_64", "apt-get", "grub-mkimage", "mformat", "sfdisk")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(which, _TOOLS)), reason="the tools to make and boot a disk are not installed"),
]


class OwnWorkerGuest(OwnWorkerHarness, GuestHarness):
    """The machine that comes home is a guest that boots."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[VSphere]:
    with run_vsphere(tmp_path / "vsphere", qemu=True) as running:
        yield running
        assert running.report()["problems"] == []


@pytest.fixture
def harness(tmp_path: Path, server: VSphere, minio_endpoint: Server, worker_disk: Path) -> OwnWorkerGuest:
    return OwnWorkerGuest(tmp_path, server, minio_endpoint, worker_disk)


def written(stage: Stage) -> list[int]:
    return [disk.counters.written for disk in stage.disks]


def test_a_worker_of_our_own_brings_a_guest_home_and_later_only_what_changed(
    harness: OwnWorkerGuest, server: VSphere
) -> None:
    with harness.open() as importer:
        place = harness.staged(importer)
        assert place.stage is not None
        assert harness.equals(place.stage, 1)
        [(name, worker)] = harness.workers().items()
        assert (worker["power"], worker["qemu"], len(worker["disks"])) == ("poweredOn", True, 1), "it gave them back"
        assert worker["disks"][0]["written"] == 0, "it never writes to its own disk"
        settings = harness.settings(name)
        assert not settings.get(SETTINGS), "whoever may look at the machine would see its code"

        build = importer.build(place, place.stage, harness.wanted().rehearsal(), "rehearsal")
        build = importer.boot(build, build.networks)
        until_ready(importer, build)
        importer.stop(build, seconds=0)
        importer.finish(harness.found(importer), build, keep=False)

        server.forget()
        later = importer.stage(harness.found(importer), harness.point(2), harness.wanted(2))
        assert harness.equals(later, 2)
        assert [disk.mode for disk in later.disks] == ["unchanged", "refresh"]
        assert sum(written(later)) == harness.bench.repository.document.chunk_size
        calls = server.report()["calls"]
        assert not {"ImportVApp", "PowerOnVM_Task", "CreateVM_Task"} & calls.keys(), "the worker was there"
        assert harness.worker()["id"] == worker["id"]

        home = importer.build(harness.found(importer), later, harness.wanted(2), "production")
        home = importer.boot(home, home.networks)
        until_ready(importer, home)
        importer.remove(harness.marker)
    assert harness.things() == []
    assert harness.worker()["power"] == "poweredOn", "it waits for the next machine"
    assert server.report()["orphans"] == []
