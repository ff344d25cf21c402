"""What goes wrong on the worker's path: the command, or the same command again, goes on, or says why not. In the end
there are one machine, one worker that has given back its disks, and nothing else."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from pyVmomi import vim
from servers import Server
from simulators.rough_line import RoughLine
from simulators.vsphere_client import Client
from simulators.vsphere_server import VSphere
from simulators.vsphere_worker import PlayedWorker
from transfer.killing import in_child
from transfer.support import MIB, make_disk, noise, poke

# The harness of the contract suite beside us.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract.vmware import WORKER, VmwareOwnWorkerHarness

from importers.vmware import worker
from manifests import mail
from manifests.machine import Machine, Nic
from pipeline.errors import TargetBusy, TargetFull, TargetMismatch, TargetUnavailable
from pipeline.place import Stage
from vmware.test_worker_shared import Aside, Heard, eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")
KIB = 1 << 10


class LargeHarness(VmwareOwnWorkerHarness):
    """One disk, large enough for something to happen while it is written."""

    def _export(self) -> None:
        path = make_disk(self.root / "large.raw", 128 * MIB, {0: noise(96 * MIB, "large")})
        hardware = Machine(name="vm", memory_bytes=1 << 30, nics=(Nic(network="lan"),))
        for sequence in (1, 2):
            self.bench.export(path, machine="vm", hardware=hardware)
            self.sources[sequence] = [path.read_bytes()]
            poke(path, 3 * MIB, noise(24 * MIB, "later"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "WATCH_SECONDS", 0.5)


@pytest.fixture
def harness(tmp_path: Path, server: VSphere, played: PlayedWorker) -> VmwareOwnWorkerHarness:
    return VmwareOwnWorkerHarness(tmp_path, server)


@pytest.fixture
def large(tmp_path: Path, server: VSphere, played: PlayedWorker) -> LargeHarness:
    return LargeHarness(tmp_path, server)


def stage(harness: VmwareOwnWorkerHarness, sequence: int = 1, control: Heard | None = None) -> Stage:
    """A command of its own."""
    point, wanted = harness.point(sequence), harness.wanted(sequence)
    with harness.open(control) as importer:
        return importer.stage(importer.prepare(point, wanted, harness.marker), point, wanted)


def written(harness: VmwareOwnWorkerHarness) -> int:
    """Bytes that the machine's disks take."""
    machine = harness.server.report()["machines"].get("vm")
    return sum(Path(disk["file"]).stat().st_blocks << 9 for disk in machine["disks"]) if machine else 0


def plugged(harness: VmwareOwnWorkerHarness) -> bool:
    return bool(harness.workers()) and len(harness.worker()["disks"]) > 1


def ordered(harness: VmwareOwnWorkerHarness) -> bool:
    """The worker's agent has an order: from here on it needs nothing of the platform."""
    return any("/orders/" in info.key for info in harness.store().list(mail.PREFIX))


def is_whole(harness: VmwareOwnWorkerHarness, sequence: int = 1) -> None:
    """Staging again moves nothing, and there is nothing else."""
    again = stage(harness, sequence)
    assert {disk.mode for disk in again.disks} == {"unchanged"}
    assert harness.equals(again, sequence)
    disks = len(harness.sources[1])
    assert [thing.partition(" ")[0] for thing in harness.things()] == ["disk"] * disks + ["machine"]
    assert len(harness.worker()["disks"]) == 1
    assert harness.server.report()["orphans"] == []


# -- the worker -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sequence", [1, 2])
def test_a_worker_whose_power_is_cut_in_mid_write_is_started_again_and_goes_on(
    large: LargeHarness, played: PlayedWorker, client: Client, sequence: int
) -> None:
    if sequence == 2:
        stage(large)
    heard = Heard()
    played.blind = sequence == 2
    command = Aside(lambda: stage(large, sequence, heard))
    eventually(lambda: written(large) > 0 if sequence == 1 else plugged(large))
    assert played.boots == 1
    [name] = large.workers()
    client.wait(client.named(vim.VirtualMachine, name).PowerOffVM_Task())
    played.blind = False
    heard.told("was switched off: it is started again (2 of 3)")
    command.end()
    assert played.boots == 2
    is_whole(large, sequence)


def test_a_worker_that_somebody_removes_is_not_waited_for(
    harness: VmwareOwnWorkerHarness, played: PlayedWorker, client: Client
) -> None:
    played.blind = True
    command = Aside(lambda: stage(harness))
    eventually(lambda: plugged(harness))
    [name] = harness.workers()
    machine = client.named(vim.VirtualMachine, name)
    client.wait(machine.PowerOffVM_Task())
    machine.UnregisterVM()
    played.blind = False
    with pytest.raises(TargetMismatch, match=f"the worker {name} is gone"):
        command.end()


def test_an_agent_that_is_killed_in_mid_write_starts_again_and_nobody_notices(
    large: LargeHarness, played: PlayedWorker
) -> None:
    command = Aside(lambda: stage(large))
    eventually(lambda: written(large) > 0)
    assert played.agent is not None
    played.agent.kill()
    command.end()
    assert played.boots == 1
    is_whole(large)


def test_a_worker_that_asks_something_is_not_waited_for(
    harness: VmwareOwnWorkerHarness, played: PlayedWorker, client: Client, server: VSphere
) -> None:
    """As vSphere does with a machine when the datastore below a thin disk is full."""
    played.blind = True
    command = Aside(lambda: stage(harness))
    eventually(lambda: plugged(harness))
    [name] = harness.workers()
    text = "There is no more space for virtual disk vm-0.vmdk"
    server.question(name, id="7", text=text, choices={"0": "Retry", "1": "Cancel"})
    with pytest.raises(TargetBusy, match="no more space for virtual disk") as caught:
        command.end()
    assert "'Retry'" in caught.value.message
    client.named(vim.VirtualMachine, name).AnswerVM("7", "0")
    played.blind = False
    stage(harness)
    assert played.boots == 1, "it is still ours"
    is_whole(harness)


# -- the platform -----------------------------------------------------------------------------------------------------


def test_a_disk_that_somebody_else_uses_is_named_and_refreshed_once_it_is_free(
    harness: VmwareOwnWorkerHarness, client: Client, server: VSphere
) -> None:
    """A backup program's proxy has it plugged in."""
    stage(harness)
    path = server.machine("vm")["disks"][0]["path"]
    spec = vim.vm.ConfigSpec(
        name="backup-proxy",
        guestId="otherLinux64Guest",
        files=vim.vm.FileInfo(vmPathName="[LocalDS_1]"),
        deviceChange=[
            vim.vm.device.VirtualDeviceSpec(
                operation="add",
                device=vim.vm.device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing"),
            ),
            vim.vm.device.VirtualDeviceSpec(
                operation="add",
                device=vim.vm.device.VirtualDisk(
                    key=-1,
                    controllerKey=1000,
                    unitNumber=0,
                    backing=vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
                        fileName=path, diskMode="independent_nonpersistent"
                    ),
                ),
            ),
        ],
    )
    proxy = client.create(spec)
    client.wait(proxy.PowerOnVM_Task(None))
    with pytest.raises(TargetBusy) as caught:
        stage(harness, 2)
    assert path in caught.value.message, caught.value.message
    assert "backup" in caught.value.remedy
    client.wait(proxy.PowerOffVM_Task())
    [disk] = [one for one in client.get(proxy, "config.hardware.device") if isinstance(one, vim.vm.device.VirtualDisk)]
    let_go = vim.vm.device.VirtualDeviceSpec(operation="remove", device=disk)
    client.wait(proxy.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[let_go])))
    client.wait(proxy.Destroy_Task())
    done = stage(harness, 2)
    assert {disk.mode for disk in done.disks} == {"refresh"}, "nobody wrote to them"
    is_whole(harness, 2)


def test_a_session_that_ends_while_the_agent_writes_is_opened_again(
    harness: VmwareOwnWorkerHarness, played: PlayedWorker, server: VSphere
) -> None:
    played.blind = True
    command = Aside(lambda: stage(harness))
    eventually(lambda: plugged(harness))
    server.end_sessions()
    played.blind = False
    command.end()
    is_whole(harness)


@pytest.mark.parametrize(("action", "skip"), [*(("status", skip) for skip in range(4)), ("lose", 1), ("lose", 2)])
def test_a_disturbed_change_is_found_or_made_again(
    harness: VmwareOwnWorkerHarness, played: PlayedWorker, server: VSphere, action: str, skip: int
) -> None:
    """Of the machine and of the worker, in turn: 401 from a proxy, a reset after disks were plugged or unplugged."""
    stage(harness)
    more = {"status": 401} if action == "status" else {}
    server.rule("ReconfigVM_Task", action, skip=skip, **more)
    with suppress(TargetUnavailable) if action != "lose" else nullcontext():
        stage(harness, 2)
    server.clear_rules()
    stage(harness, 2)
    assert played.boots == 1
    is_whole(harness, 2)


def test_a_silent_platform_does_not_keep_the_agent_from_writing(
    harness: VmwareOwnWorkerHarness, played: PlayedWorker, server: VSphere
) -> None:
    played.blind = True
    heard = Heard()
    command = Aside(lambda: stage(harness, control=heard))
    eventually(lambda: ordered(harness))
    server.rule("RetrievePropertiesEx", "cut", times=-1)
    played.blind = False
    eventually(lambda: written(harness) > 0)
    server.clear_rules()
    command.end()
    is_whole(harness)


def test_neither_cluster_nor_datastore_cluster_moves_a_worker(
    harness: VmwareOwnWorkerHarness, client: Client, server: VSphere
) -> None:
    [datacenter] = client.all(vim.Datacenter)
    pod = client.get(datacenter, "datastoreFolder").CreateStoragePod("gold")
    client.wait(pod.MoveIntoFolder_Task([client.named(vim.Datastore, "LocalDS_0")]))
    stage(harness)
    for told in ("ReconfigureComputeResource_Task", "ConfigureStorageDrsForPod_Task"):
        assert server.report()["calls"].get(told) == 1, told
    is_whole(harness)


def test_a_worker_for_which_there_is_no_room_is_told_and_nothing_is_left(
    harness: VmwareOwnWorkerHarness, server: VSphere
) -> None:
    server.resize("LocalDS_0", 600 * KIB)
    with pytest.raises(TargetFull, match="LocalDS_0"):
        stage(harness)
    assert not harness.workers()
    assert [path for path in server.report()["orphans"] if WORKER in path] == []
    server.resize("LocalDS_0", 1 << 40)
    stage(harness)
    is_whole(harness)


@pytest.mark.parametrize("sizes", ["same", "other"])
def test_what_a_killed_refresh_left_plugged_in_is_taken_up_or_taken_away(
    harness: VmwareOwnWorkerHarness, played: PlayedWorker, server: VSphere, sizes: str
) -> None:
    stage(harness)
    if sizes == "other":
        paths = [make_disk(harness.root / f"grown-{n}", 3 * MIB, {MIB: noise(MIB, n)}) for n in range(2)]
        harness.bench.export(*paths, machine="vm", hardware=harness.point(1).manifest.machine)
        harness.sources[3] = [path.read_bytes() for path in paths]
    sequence = 3 if sizes == "other" else 2
    played.blind = True

    def doomed() -> None:
        Aside(lambda: stage(harness, sequence))
        eventually(lambda: plugged(harness))
        os.kill(os.getpid(), 9)

    assert in_child(doomed)
    played.blind = False
    stage(harness, sequence)
    is_whole(harness, sequence)


# -- the bucket -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [5, 25])
def test_a_bucket_that_is_away_for_a_while_holds_nothing_up_for_good(
    tmp_path: Path, server: VSphere, played: PlayedWorker, minio_endpoint: Server, seconds: int
) -> None:
    line = RoughLine(minio_endpoint.endpoint, seed=1)
    with line.running():
        large = LargeHarness(tmp_path, server, address=replace(minio_endpoint, endpoint=line.endpoint).address())
        command = Aside(lambda: stage(large))
        eventually(lambda: written(large) > 0)
        line.hold()
        line.cut()
        threading.Event().wait(seconds)
        line.go_on()
        command.end()
        assert played.boots == 1
        is_whole(large)
