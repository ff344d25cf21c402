"""A worker of failback's own making, as one whole run: imported from its image, told its code by `guestinfo`, booted in
QEMU, it writes what the stand-in plugs into it while it runs, from what a surviving machine still has; its power is cut
meanwhile; and the machine that it wrote boots."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from agent.conftest import worker_disk
from pyVmomi import vim
from servers import Server
from simulators.vsphere_client import log_in
from simulators.vsphere_server import VSphere, run_vsphere
from transfer.support import CHUNK, noise

# The harness of the contract suite beside us.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from importers.vmware.worker import SETTINGS
from pipeline.place import Stage
from vmware.test_guest import GuestHarness, until_ready
from vmware.test_seeds import SURVIVOR, Seeded, Survivor, lent, stage
from vmware.test_worker_faults import written as allocated
from vmware.test_worker_shared import Aside, Heard, eventually

__all__ = ["worker_disk"]
"""A fixture of another part."""
_TOOLS = ("qemu-system-x86_64", "apt-get", "grub-mkimage", "mformat", "sfdisk")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(which, _TOOLS)), reason="the tools to make and boot a disk are not installed"),
]


class OwnWorkerGuest(Seeded, GuestHarness):
    """The machine that comes home is a guest that boots, and tells so in production, too."""

    def mapping(self) -> dict[str, object]:
        said: Any = super().mapping()
        said["options"]["vmware"]["serial"] = "always"
        return said


@pytest.fixture
def server(tmp_path: Path) -> Iterator[VSphere]:
    with run_vsphere(tmp_path / "vsphere", qemu=True) as running:
        yield running
        assert running.report()["problems"] == []


@pytest.fixture
def settings(minio_endpoint: Server, worker_disk: Path) -> dict[str, Any]:
    """Of a harness."""
    address = minio_endpoint.address()
    # QEMU's user network shows this host as 10.0.2.2.
    there = address.replace("127.0.0.1", "10.0.2.2")
    return {"address": address, "repository": there, "image": str(worker_disk), "memory": "1GiB"}


def written(stage: Stage) -> list[int]:
    return [disk.counters.written for disk in stage.disks]


def test_a_worker_of_our_own_brings_a_guest_home_and_later_only_what_changed(
    tmp_path: Path, server: VSphere, settings: dict[str, Any]
) -> None:
    harness = OwnWorkerGuest(tmp_path, server, **settings)
    staged_on_a_worker_whose_power_is_cut(harness)
    with harness.open() as importer:
        place = harness.found(importer)
        assert place.stage is not None
        assert harness.equals(place.stage, 1)
        [(name, worker)] = harness.workers().items()
        assert (worker["power"], worker["qemu"], len(worker["disks"])) == ("poweredOn", True, 1), "it gave them back"
        assert worker["disks"][0]["written"] == 0, "it never writes to its own disk"
        assert not harness.settings(name).get(SETTINGS), "whoever may look at the machine would see its code"

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
        Path(server.machine("vm")["serial"]).write_bytes(b"")  # what the rehearsal said
        home = importer.boot(home, home.networks)
        until_ready(importer, home)
        importer.remove(harness.marker)
    assert harness.things() == []
    assert harness.worker()["power"] == "poweredOn", "it waits for the next machine"
    assert server.report()["orphans"] == []


def staged_on_a_worker_whose_power_is_cut(harness: OwnWorkerGuest) -> None:
    """The first point, in mid-write. All but one chunk comes from a surviving machine."""
    client = log_in(harness.server)
    first, second = harness.sources[1]
    survivor = Survivor(harness.server, client, [noise(CHUNK, "other") + first[CHUNK:], second])
    harness.seeds = (SURVIVOR,)
    heard, done = Heard(), []
    command = Aside(lambda: done.append(stage(harness, heard=heard)), seconds=900)
    eventually(lambda: allocated(harness) > 0 or command.error, seconds=600)
    assert lent(harness) == survivor.paths
    [name] = harness.workers()
    client.wait(client.named(vim.VirtualMachine, name).PowerOffVM_Task())
    heard.told("was switched off: it is started again (2 of 3)")
    command.end()
    [stage_done] = done
    chunk = harness.bench.repository.document.chunk_size
    assert sum(disk.counters.deduplicated for disk in stage_done.disks) > 10 * chunk
    assert sum(disk.counters.read for disk in stage_done.disks) <= chunk + 4096, "the one that it had not"
    assert lent(harness) == []
    assert survivor.is_untouched()
    client.wait(survivor.machine.Destroy_Task())
    harness.seeds = ()
