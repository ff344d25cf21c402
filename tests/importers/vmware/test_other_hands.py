"""What people do to a machine or its site between our commands, and names and sites that are not the usual ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulators.vsphere_client import Client, attach_spec, detach_spec, disks_of, log_in, machine_spec
from simulators.vsphere_server import VSphere, run_vsphere

# The harness of the contract suite beside us.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract.vmware import VmwareHarness
from pyVmomi import vim

from importers.vmware import isolated
from importers.vmware.vm import DISKS, VirtualDisk, Vm, strangers
from pipeline.errors import TargetBusy, TargetError
from pipeline.home.control import Controller
from pipeline.target import Intent, Stage


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VSphere]:
    with run_vsphere(tmp_path_factory.mktemp("vsphere")) as running:
        yield running
        assert running.report()["problems"] == []


@pytest.fixture
def server(standin: VSphere) -> Iterator[VSphere]:
    standin.forget()
    yield standin
    standin.clear_rules()


@pytest.fixture
def harness(tmp_path: Path, server: VSphere) -> Iterator[VmwareHarness]:
    yield from emptied(VmwareHarness(tmp_path, server))


def emptied(made: VmwareHarness) -> Iterator[VmwareHarness]:
    yield made
    with made.open() as importer:
        importer.remove(made.marker)
    assert made.things() == []


def stage(harness: VmwareHarness, sequence: int = 1, **said: object) -> Stage:
    point, wanted = harness.point(sequence), harness.wanted(sequence, **said)
    with harness.open() as importer:
        return importer.stage(importer.prepare(point, wanted, harness.marker), point, wanted)


def ours(harness: VmwareHarness, client: Client) -> Any:
    with harness.open() as importer:
        place = harness.found(importer)
    return next(vm for vm in client.all(vim.VirtualMachine) if vm._moId == place.ref["machine"])


def is_one_machine(harness: VmwareHarness) -> None:
    assert [thing.partition(" ")[0] for thing in harness.things()] == ["disk", "disk", "machine"]


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["B\u00fcro 50% / DMZ\\\u6771\u4eac", "x" * 80, "100%", "a/b"],
    ids=["everything", "80 characters", "per cent", "slash"],
)
def test_a_machine_may_have_any_name_that_vsphere_takes(harness: VmwareHarness, server: VSphere, name: str) -> None:
    stage(harness, name=name)
    server.forget()
    assert [disk.mode for disk in stage(harness, name=name).disks] == ["unchanged"] * 2
    assert "ReconfigVM_Task" not in server.report()["calls"], "it has its name"
    with harness.open() as importer:
        found = importer.preflight(harness.point(), harness.wanted(name=name), Intent("production", boots=True))
        assert [f for f in found if f.severity == "error"] == []
    done = stage(harness, 2, name=name)
    assert harness.equals(done, 2)
    is_one_machine(harness)
    with harness.open() as importer:
        place = harness.found(importer)
        assert place.stage is not None
        tried = harness.wanted(2, name=name).rehearsal()
        found = importer.preflight(harness.point(2), tried, Intent("rehearsal", boots=True))
        assert [f for f in found if f.severity == "error"] == []
        build = importer.build(place, place.stage, tried, "rehearsal")
        assert (build.name, importer.build(place, place.stage, tried, "rehearsal")) == (tried.name, build)
        importer.finish(harness.found(importer), build, keep=False)
        place = harness.found(importer)
        assert place.stage is not None
        build = importer.build(place, place.stage, harness.wanted(2, name=name), "production")
        assert build.name == name
        importer.boot(build, build.networks)
        assert importer.observe(build).power == "on"
        importer.stop(build, seconds=0)


def test_a_name_that_is_taken_meanwhile_is_told_before_the_first_byte(
    harness: VmwareHarness, server: VSphere, client: Client
) -> None:
    other = client.create(machine_spec("100% vm"))
    try:
        with pytest.raises(TargetBusy, match="another machine called 100% vm"):
            stage(harness, name="100% vm")
        assert "ImportVApp" not in server.report()["calls"]
        with harness.open() as importer:
            wanted = harness.wanted(name="100% vm")
            found = importer.preflight(harness.point(), wanted, Intent("production", boots=True))
            assert [f.subject for f in found if f.severity == "error"] == ["name"]
    finally:
        client.wait(other.Destroy_Task())


# -- what people do with a machine -------------------------------------------------------------------------------------


def test_a_machine_that_was_renamed_and_moved_is_found_and_has_its_name_again(
    harness: VmwareHarness, client: Client
) -> None:
    stage(harness)
    machine = ours(harness, client)
    elsewhere = client.folder.CreateFolder("elsewhere")
    client.wait(machine.Rename_Task("mine now"))
    client.wait(elsewhere.MoveIntoFolder_Task([machine]))
    done = stage(harness, 2)
    assert harness.equals(done, 2)
    assert client.get(ours(harness, client), "name") == "vm"
    is_one_machine(harness)
    client.wait(elsewhere.Destroy_Task())


def test_a_snapshot_of_somebody_else_is_neither_deleted_nor_written_over(
    harness: VmwareHarness, server: VSphere, client: Client
) -> None:
    stage(harness)
    machine = ours(harness, client)
    client.wait(machine.Rename_Task("renamed, so that the preflight does not know it"))
    client.wait(machine.CreateSnapshot_Task("before the audit", "", False, False))
    server.forget()
    with pytest.raises(TargetBusy, match="'before the audit'") as caught:
        stage(harness, 2)
    assert caught.value.remedy
    assert not {"ImportVApp", "Destroy_Task"} & server.report()["calls"].keys()
    assert client.get(machine, "snapshot").rootSnapshotList[0].name == "before the audit"
    client.wait(machine.RemoveAllSnapshots_Task(True))
    assert harness.equals(stage(harness, 2), 2)
    is_one_machine(harness)


def test_a_machine_whose_layer_somebody_removed_is_never_taken_for_a_stage(
    harness: VmwareHarness, server: VSphere, client: Client
) -> None:
    stage(harness)
    with harness.open() as importer:
        place = harness.found(importer)
        assert place.stage is not None
        build = importer.build(place, place.stage, harness.wanted(), "production")
        importer.boot(build, build.networks)
        client.wait(ours(harness, client).RemoveAllSnapshots_Task(True))
        importer.stop(build, seconds=0)
        place = harness.found(importer)
        assert place.state == "kept"
        assert place.build is not None
        assert place.stage is not None
        assert "somebody removed the snapshot" in importer.check(place.stage)
        server.forget()
        with pytest.raises(TargetBusy, match="cannot be made another point's"):
            stage(harness, 2)
        with pytest.raises(TargetError, match="cannot be dropped"):
            importer.finish(place, place.build, keep=False)
        assert not {"ImportVApp", "Destroy_Task"} & server.report()["calls"].keys()
        assert importer.boot(place.build, ()).booted
        assert harness.found(importer).state == "running"
        importer.stop(place.build, seconds=0)


def test_a_disk_that_somebody_plugged_in_is_never_deleted(harness: VmwareHarness, client: Client) -> None:
    other = client.create(machine_spec("data"))
    try:
        [theirs] = disks_of(client, other)
        client.wait(other.ReconfigVM_Task(detach_spec(theirs)))
        stage(harness)
        machine = ours(harness, client)
        client.wait(machine.ReconfigVM_Task(attach_spec(theirs.backing.fileName, mode="persistent")))
        for again in (lambda: stage(harness, 2), lambda: removed(harness)):
            with pytest.raises(TargetBusy, match=r"\[LocalDS_0\] data/") as caught:
                again()
            assert "unplug" in (caught.value.remedy or "")
        assert harness.server.report()["calls"]["ImportVApp"] == 1, "it is told before anything is sent again"
        assert theirs.backing.fileName in harness.server.report()["disks"]
        for vm in client.all(vim.VirtualMachine):
            for disk in disks_of(client, vm):
                if disk.backing.fileName == theirs.backing.fileName:
                    client.wait(vm.ReconfigVM_Task(detach_spec(disk)))
        assert removed(harness)
        assert theirs.backing.fileName in harness.server.report()["disks"]
        client.wait(other.ReconfigVM_Task(attach_spec(theirs.backing.fileName, mode="persistent")))
    finally:
        client.wait(other.Destroy_Task())


def removed(harness: VmwareHarness) -> bool:
    with harness.open() as importer:
        return importer.remove(harness.marker)


def test_our_disks_are_known_by_their_files_and_where_vsphere_moved_them_by_their_marks() -> None:
    def vm(file: str, uuid: str, **marks: str) -> Vm:
        disk = VirtualDisk(2000, 1000, 0, file, file, uuid, 1024, "persistent", raw=False, device=None)
        return Vm(None, "web", "0badcafe-0000-5000-8000-000000000000", "1", "poweredOff", marks, (disk,), ())

    assert strangers(vm("[ds] web-0badcafe/web-0badcafe-0.vmdk", "aa")) == []
    assert strangers(vm("[ds] web/web.vmdk", "aa", **{DISKS: "bb aa"})) == []
    assert len(strangers(vm("[ds] web/web.vmdk", "cc", **{DISKS: "bb aa"}))) == 1
    assert len(strangers(vm("[ds] web/web.vmdk", "cc"))) == 1


# -- rehearsals are alone ----------------------------------------------------------------------------------------------


def switch_of_ours(client: Client, host: Any, switch: str) -> Any:
    """A port group with our name on that switch."""
    system = client.get(host, "configManager.networkSystem")
    name = "failback-isolated"
    policy = vim.host.NetworkPolicy()
    system.AddPortGroup(vim.host.PortGroup.Specification(name=name, vlanId=0, vswitchName=switch, policy=policy))
    return system


def no_switch_of_ours(client: Client) -> None:
    """As at the beginning: earlier rehearsals leave it, for the next ones."""
    for host in cluster_hosts(client):
        if "failback-isolated" in [switch.name for switch in client.get(host, "config.network.vswitch")]:
            client.get(host, "configManager.networkSystem").RemoveVirtualSwitch("failback-isolated")


def cluster_hosts(client: Client) -> list[Any]:
    return list(client.get(client.named(vim.ClusterComputeResource, "DC0_C0"), "host"))


def rehearse(harness: VmwareHarness) -> None:
    stage(harness)
    with harness.open() as importer:
        place = harness.found(importer)
        assert place.stage is not None
        importer.build(place, place.stage, harness.wanted().rehearsal(), "rehearsal")


def networks_of(client: Client, machine: Any) -> list[str]:
    return [client.get(network, "name") for network in client.get(machine, "network")]


@pytest.mark.parametrize("everywhere", [True, False], ids=["on its host", "on another host"])
def test_a_port_group_of_our_name_that_has_a_way_out_is_not_taken_for_isolated(
    harness: VmwareHarness, client: Client, everywhere: bool
) -> None:
    no_switch_of_ours(client)
    stage(harness)
    own = client.get(ours(harness, client), "runtime.host")
    hosts = cluster_hosts(client) if everywhere else [host for host in cluster_hosts(client) if host != own]
    systems = [switch_of_ours(client, host, "vSwitch0") for host in hosts]
    try:
        with harness.open() as importer:
            found = importer.preflight(harness.point(), harness.wanted().rehearsal(), Intent("rehearsal", boots=True))
            assert "network failback-isolated" in [f.subject for f in found if f.severity == "error"]
        with pytest.raises(TargetError, match="failback-isolated") as caught:
            rehearse(harness)
        assert "isolated" in (caught.value.remedy or "")
        assert networks_of(client, ours(harness, client)) == []
    finally:
        removed(harness)
        for system in systems:
            system.RemovePortGroup("failback-isolated")
        no_switch_of_ours(client)


def test_a_network_of_ours_that_appears_late_is_waited_for_and_one_that_does_not_pulls_the_cables(
    harness: VmwareHarness, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vCenter learns of it from the host."""
    no_switch_of_ours(client)
    real, looks = isolated.all_networks, 0

    def late(*given: Any) -> list[Any]:
        nonlocal looks
        looks += 1
        return [network for network in real(*given) if network.name != isolated.NAME or looks > 2]

    monkeypatch.setattr(isolated, "all_networks", late)
    rehearse(harness)
    assert networks_of(client, ours(harness, client)) == ["failback-isolated"]
    removed(harness)
    looks = -100
    monkeypatch.setattr(isolated, "LOOKS", 1)
    told: list[str] = []
    stage(harness)
    with harness.open(Controller(tell=told.append)) as importer:
        place = harness.found(importer)
        assert place.stage is not None
        importer.build(place, place.stage, harness.wanted().rehearsal(), "rehearsal")
    assert any("does not appear" in text for text in told), told
    devices = client.get(ours(harness, client), "config.hardware.device")
    [card] = [device for device in devices if isinstance(device, vim.vm.device.VirtualEthernetCard)]
    assert not card.connectable.startConnected
    assert not card.connectable.allowGuestControl


class Named(VmwareHarness):
    """With a network for rehearsals that the mapping names."""

    def mapping(self) -> dict[str, object]:
        said: Any = super().mapping()
        said["options"]["vmware"]["isolated"] = "apart"
        return said


def test_a_network_for_rehearsals_that_got_an_uplink_after_the_preflight_is_not_used(
    tmp_path: Path, server: VSphere, client: Client
) -> None:
    for harness in emptied(Named(tmp_path, server)):
        hosts = cluster_hosts(client)
        group = vim.host.PortGroup.Specification(
            name="apart", vlanId=0, vswitchName="vSwitch0", policy=vim.host.NetworkPolicy()
        )
        for host in hosts:
            client.get(host, "configManager.networkSystem").AddPortGroup(group)
        with pytest.raises(TargetError, match="apart is to isolate machines"):
            rehearse(harness)
        assert networks_of(client, ours(harness, client)) == []
        removed(harness)
        for host in hosts:
            client.get(host, "configManager.networkSystem").RemovePortGroup("apart")


def test_a_rehearsal_is_never_built_in_a_network_with_a_name(harness: VmwareHarness, client: Client) -> None:
    stage(harness)
    with harness.open() as importer:
        place = harness.found(importer)
        assert place.stage is not None
        with pytest.raises(TargetError, match="would be in the network VM Network"):
            importer.build(place, place.stage, harness.wanted(), "rehearsal")
    assert networks_of(client, ours(harness, client)) == []


# -- sites -------------------------------------------------------------------------------------------------------------


class Apart(VmwareHarness):
    """Where the machine goes is said for it alone: its datacenter is one of two, and in a folder."""

    def mapping(self) -> dict[str, object]:
        said: Any = super().mapping()
        own = {key: said["options"]["vmware"].pop(key) for key in ("datacenter", "cluster", "datastore")}
        said["machines"] = {"vm": {"options": {"vmware": own | {"datacenter": "Sites/DC0"}}}}
        said["disks"] = {1: {"storage": "LocalDS_1"}}
        return said


def test_a_datacenter_that_only_the_machine_names_and_that_is_in_a_folder_serves_every_verb(tmp_path: Path) -> None:
    with run_vsphere(tmp_path / "vsphere") as server:
        client = log_in(server)
        root = client.content.rootFolder
        sites = root.CreateFolder("Sites")
        client.wait(sites.MoveIntoFolder_Task([client.named(vim.Datacenter, "DC0")]))
        root.CreateDatacenter("DC1")
        harness = Apart(tmp_path, server)
        before = sorted(entry.name for entry in Path(server.datastores["LocalDS_1"]).iterdir())
        for sequence in (1, 2):
            assert harness.equals(stage(harness, sequence), sequence)
        with harness.open() as importer:
            place = harness.found(importer)
            assert place.stage is not None
            build = importer.build(place, place.stage, harness.wanted(2).rehearsal(), "rehearsal")
            build = importer.boot(build, build.networks)
            seen = importer.observe(build)
            assert seen.power == "on"
            picture = importer.picture(build)
            assert picture is not None
            assert picture.startswith(b"\x89PNG")
            serial = Path(server.machine(build.name)["serial"])
            serial.write_text("login:")
            assert importer.observe(build).console == "login:"
            importer.stop(build, seconds=0)
            importer.finish(harness.found(importer), build, keep=False)
            importer.remove(harness.marker)
        assert harness.things() == []
        assert sorted(entry.name for entry in Path(server.datastores["LocalDS_1"]).iterdir()) == before
