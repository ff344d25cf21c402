"""The stand-in's machines: what is refused when they are made, changed, powered on and removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from simulators.vsphere_client import (
    DISK_BYTES,
    Add,
    Client,
    TaskFailed,
    attach_spec,
    detach_spec,
    disks_of,
    eventually,
    log_in,
    machine_spec,
)
from simulators.vsphere_server import VSphere, run_vsphere

Device = vim.vm.device


def failure(client: Client, task: Any) -> Any:
    with pytest.raises(TaskFailed) as failed:
        client.wait(task)
    return failed.value.fault


def card(network: str, mac: str | None = None) -> Any:
    backing = Device.VirtualEthernetCard.NetworkBackingInfo(deviceName=network)
    kind = "manual" if mac else "assigned"
    return Add(operation="add", device=Device.VirtualVmxnet3(key=-9, backing=backing, macAddress=mac, addressType=kind))


def test_a_new_machine_has_empty_disks_with_identity(client: Client, name: str, server: VSphere) -> None:
    machine = client.create(machine_spec(name, disks=2, instanceUuid="11111111-2222-3333-4444-555555555555"))
    first, second = disks_of(client, machine)
    assert first.backing.uuid.startswith("6000C29")
    assert first.backing.uuid != second.backing.uuid
    states = server.machine(name)["disks"]
    assert [state["uuid"] for state in states] == [first.backing.uuid, second.backing.uuid]
    assert all(Path(state["file"]).read_bytes() == bytes(DISK_BYTES) for state in states)
    found = client.content.searchIndex.FindByUuid(None, "11111111-2222-3333-4444-555555555555", True, True)
    assert found == machine
    client.wait(machine.Destroy_Task())
    assert not Path(states[0]["file"]).exists()
    assert server.report()["orphans"] == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"guestId": "beos64Guest"}, vmodl.fault.InvalidArgument),
        ({"datastore": "nowhere"}, vim.fault.InvalidDatastorePath),
        ({"size": 0}, vim.fault.InvalidVmConfig),
        ({"size": 2 << 40, "thin": False}, vim.fault.NoDiskSpace),
        ({"deviceChange": [card("nowhere")]}, vim.fault.InvalidDeviceBacking),
        ({"deviceChange": [card("VM Network", "01:00:5e:00:00:01")]}, vmodl.fault.InvalidArgument),
        ({"deviceChange": attach_spec("[LocalDS_0] nowhere/x.vmdk").deviceChange}, vim.fault.FileNotFound),
    ],
    ids=["guest id", "datastore", "no capacity", "space", "network", "multicast address", "missing disk"],
)
def test_a_specification_that_no_host_takes_is_refused(
    client: Client, name: str, server: VSphere, change: dict[str, Any], fault: Any
) -> None:
    assert isinstance(
        failure(client, client.folder.CreateVM_Task(machine_spec(name, **change), client.pool, None)), fault
    )
    assert name not in server.report()["machines"]
    assert server.report()["orphans"] == []


def test_a_name_is_taken_once_in_a_folder(client: Client, name: str) -> None:
    machine = client.create(machine_spec(name))
    other = client.create(machine_spec(name + "-other"))
    again = failure(client, client.folder.CreateVM_Task(machine_spec(name), client.pool, None))
    assert isinstance(again, vim.fault.DuplicateName)
    assert (again.name, again.object) == (name, machine)
    renamed = failure(client, other.ReconfigVM_Task(vim.vm.ConfigSpec(name=name)))
    assert isinstance(renamed, vim.fault.DuplicateName)


def test_the_same_card_address_twice_is_told_by_an_event(client: Client, name: str) -> None:
    mac = "00:50:56:12:34:56"
    client.create(machine_spec(name, deviceChange=[card("VM Network", mac)]))
    client.create(machine_spec(name + "-other", deviceChange=[card("VM Network", mac)]))
    events = client.content.eventManager.QueryEvents(vim.event.EventFilterSpec(eventTypeId=["VmMacConflictEvent"]))
    assert [(event.mac, event.conflictedVm.name) for event in events] == [(mac, name)]


def test_a_disk_of_a_running_machine_is_locked(client: Client, name: str, server: VSphere) -> None:
    target = client.create(machine_spec(name))
    worker = client.create(machine_spec(name + "-worker"))
    third = client.create(machine_spec(name + "-third"))
    [disk] = disks_of(client, target)
    path = disk.backing.fileName
    client.wait(worker.PowerOnVM_Task())
    client.wait(worker.ReconfigVM_Task(attach_spec(path)))
    [_, seen] = disks_of(client, worker)
    assert (seen.capacityInBytes, seen.backing.uuid) == (DISK_BYTES, disk.backing.uuid)
    assert server.report()["disks"][path]["locked_by"] == name + "-worker"

    refused = failure(client, target.PowerOnVM_Task())
    assert isinstance(refused, vim.fault.GenericVmConfigFault)
    assert "Failed to lock the file" in refused.msg
    assert isinstance(failure(client, third.ReconfigVM_Task(attach_spec(path))), vim.fault.FileLocked)
    client.wait(third.PowerOnVM_Task())
    assert isinstance(failure(client, third.ReconfigVM_Task(attach_spec(path))), vim.fault.GenericVmConfigFault)
    assert isinstance(failure(client, target.Destroy_Task()), vim.fault.FileLocked)
    manager = client.content.virtualDiskManager
    datacenter = client.all(vim.Datacenter)[0]
    assert isinstance(failure(client, manager.DeleteVirtualDisk_Task(path, datacenter)), vim.fault.FileLocked)
    folder = path.rpartition("/")[0]
    assert isinstance(
        failure(client, client.content.fileManager.DeleteDatastoreFile_Task(folder, datacenter)), vim.fault.FileLocked
    )

    client.wait(worker.ReconfigVM_Task(detach_spec(seen)))
    assert server.report()["disks"][path]["locked_by"] == ""
    client.wait(target.PowerOnVM_Task())


def test_a_destroyed_worker_takes_attached_disks_with_it(client: Client, name: str, server: VSphere) -> None:
    target = client.create(machine_spec(name))
    worker = client.create(machine_spec(name + "-worker"))
    path = disks_of(client, target)[0].backing.fileName
    client.wait(worker.ReconfigVM_Task(attach_spec(path)))
    client.wait(worker.Destroy_Task())
    assert path not in server.report()["disks"]
    assert isinstance(failure(client, target.PowerOnVM_Task()), vim.fault.GenericVmConfigFault)


def test_every_change_has_another_version(client: Client, name: str) -> None:
    machine = client.create(machine_spec(name))
    seen = [client.get(machine, "config.changeVersion")]
    for start in (
        lambda: machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="x")),
        machine.PowerOnVM_Task,
        lambda: machine.CreateSnapshot_Task("s", "", False, False),
    ):
        client.wait(start())
        seen.append(client.get(machine, "config.changeVersion"))
    assert len(set(seen)) == 4
    stale = machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="y", changeVersion=seen[0]))
    assert isinstance(failure(client, stale), vim.fault.ConcurrentAccess)


def test_events_name_the_user(client: Client, name: str, server: VSphere) -> None:
    server.add_user("other@vsphere.local", "secret", {"*": ["VirtualMachine.Interact.PowerOn"]})
    machine = client.create(machine_spec(name))
    other = log_in(server, "other@vsphere.local", "secret")
    other.wait(vim.VirtualMachine(machine._moId, other.instance._stub).PowerOnVM_Task())
    client.wait(machine.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="x")))
    client.wait(machine.CreateSnapshot_Task("s", "", False, False))
    by_entity = vim.event.EventFilterSpec.ByEntity(entity=machine, recursion="self")
    events = client.content.eventManager.QueryEvents(vim.event.EventFilterSpec(entity=by_entity))
    users = {type(event).__name__.rpartition(".")[2]: event.userName for event in events}
    assert users["VmPoweredOnEvent"] == "other@vsphere.local"
    assert users["VmReconfiguredEvent"] == server.user
    tasks = [event for event in events if isinstance(event, vim.event.TaskEvent)]
    snapshots = [event for event in tasks if event.info.descriptionId == "VirtualMachine.createSnapshot"]
    assert [event.userName for event in snapshots] == [server.user]


def test_hardware_changes_only_while_the_machine_is_off(client: Client, name: str) -> None:
    machine = client.create(machine_spec(name))
    client.wait(machine.PowerOnVM_Task())
    fault = failure(client, machine.ReconfigVM_Task(vim.vm.ConfigSpec(firmware="efi")))
    assert isinstance(fault, vim.fault.InvalidPowerState)
    assert isinstance(failure(client, machine.PowerOnVM_Task()), vim.fault.InvalidPowerState)
    assert isinstance(failure(client, machine.Destroy_Task()), vim.fault.InvalidPowerState)


def test_a_guest_without_tools_cannot_be_asked_to_shut_down(client: Client, name: str, server: VSphere) -> None:
    machine = client.create(machine_spec(name))
    client.wait(machine.PowerOnVM_Task())
    with pytest.raises(vim.fault.ToolsUnavailable):
        machine.ShutdownGuest()
    server.guest(name, hostname="web-1", addresses=["10.1.2.3"])
    assert client.get(machine, "guest.hostName") == "web-1"
    assert client.get(machine, "guest.ipAddress") == "10.1.2.3"
    assert client.get(machine, "guest.toolsRunningStatus") == "guestToolsRunning"
    assert client.get(machine, "guestHeartbeatStatus") == "green"
    machine.ShutdownGuest()
    eventually(lambda: client.get(machine, "runtime.powerState") == "poweredOff")
    assert client.get(machine, "guestHeartbeatStatus") == "gray"


def test_a_stubborn_guest_stays_on(client: Client, name: str, server: VSphere) -> None:
    server.guest(name, stubborn=True)
    machine = client.create(machine_spec(name))
    client.wait(machine.PowerOnVM_Task())
    machine.ShutdownGuest()
    assert client.get(machine, "runtime.powerState") == "poweredOn"


def test_a_power_on_waits_for_the_answer_to_a_question(client: Client, name: str, server: VSphere) -> None:
    machine = client.create(machine_spec(name))
    choices = {"0": "Cancel", "1": "I copied it"}
    server.question(name, id="7", text="Moved or copied?", choices=choices, on_power_on=True, refusing=["0"])
    task = machine.PowerOnVM_Task()
    eventually(lambda: client.get(machine, "runtime.question") is not None)
    question = client.get(machine, "runtime.question")
    assert (question.id, question.text) == ("7", "Moved or copied?")
    assert [choice.key for choice in question.choice.choiceInfo] == ["0", "1"]
    assert client.get(task, "info.state") == "running"
    for wrong in (("8", "1"), ("7", "2")):
        with pytest.raises(vmodl.fault.InvalidArgument):
            machine.AnswerVM(*wrong)
    machine.AnswerVM("7", "1")
    client.wait(task)
    assert client.get(machine, "runtime.question") is None


def test_a_question_answered_with_no_fails_the_power_on(client: Client, name: str, server: VSphere) -> None:
    machine = client.create(machine_spec(name))
    server.question(name, id="7", text="Sure?", choices={"0": "No"}, on_power_on=True, refusing=["0"])
    task = machine.PowerOnVM_Task()
    eventually(lambda: client.get(machine, "runtime.question") is not None)
    machine.AnswerVM("7", "0")
    assert isinstance(failure(client, task), vim.fault.GenericVmConfigFault)
    assert client.get(machine, "runtime.powerState") == "poweredOff"


def test_a_question_may_come_while_it_runs(client: Client, name: str, server: VSphere) -> None:
    machine = client.create(machine_spec(name))
    client.wait(machine.PowerOnVM_Task())
    server.question(name, id="9", text="The disk is full.", choices={"0": "Retry", "1": "Cancel"}, default=1)
    question = client.get(machine, "runtime.question")
    assert (question.text, question.choice.defaultIndex) == ("The disk is full.", 1)
    machine.AnswerVM("9", "0")
    assert client.get(machine, "runtime.question") is None


def test_a_card_may_be_on_a_distributed_port_group(client: Client, name: str) -> None:
    group = client.named(vim.dvs.DistributedVirtualPortgroup, "DC0_DVPG0")
    switch = client.get(group, "config.distributedVirtualSwitch")

    def spec(key: str) -> Any:
        port = vim.dvs.PortConnection(portgroupKey=key, switchUuid=client.get(switch, "uuid"))
        backing = Device.VirtualEthernetCard.DistributedVirtualPortBackingInfo(port=port)
        adding = Add(operation="add", device=Device.VirtualE1000e(key=-9, backing=backing, addressType="assigned"))
        return machine_spec(name, deviceChange=[adding])

    wrong = failure(client, client.folder.CreateVM_Task(spec("dvportgroup-0"), client.pool, None))
    assert isinstance(wrong, vim.fault.InvalidDeviceBacking)
    machine = client.create(spec(client.get(group, "key")))
    assert client.get(machine, "network") == [group]


def test_a_picture_of_the_screen_is_a_file_of_the_datastore(client: Client, name: str) -> None:
    machine = client.create(machine_spec(name))
    assert isinstance(failure(client, machine.CreateScreenshot_Task()), vim.fault.InvalidPowerState)
    client.wait(machine.PowerOnVM_Task())
    path = client.wait(machine.CreateScreenshot_Task())
    assert client.file(path).body.startswith(b"\x89PNG")


def test_an_isolated_network_can_be_made(client: Client, name: str) -> None:
    """On two hosts of a cluster it is one network; a machine goes to a host that has it."""
    cluster = client.named(vim.ClusterComputeResource, "DC0_C0")
    pool = client.get(cluster, "resourcePool")
    first, second = client.get(cluster, "host")
    group = vim.host.PortGroup.Specification(name=name, vlanId=0, vswitchName=name, policy=vim.host.NetworkPolicy())
    for number, host in enumerate((second, first)):
        system = client.get(host, "configManager.networkSystem")
        system.AddVirtualSwitch(name, vim.host.VirtualSwitch.Specification(numPorts=8))
        with pytest.raises(vim.fault.AlreadyExists):
            system.AddVirtualSwitch(name, vim.host.VirtualSwitch.Specification(numPorts=8))
        system.AddPortGroup(group)
        if number == 0:
            machine = client.wait(
                client.folder.CreateVM_Task(machine_spec(name, deviceChange=[card(name)]), pool, None)
            )
            assert client.get(machine, "runtime.host") == second
            spec = machine_spec(name + "-other", deviceChange=[card(name)])
            wrong = client.folder.CreateVM_Task(spec, pool, first)
            assert isinstance(failure(client, wrong), vim.fault.InvalidDeviceBacking)
    network = client.named(vim.Network, name)
    assert client.get(machine, "network") == [network]
    assert client.get(network, "name") == name
    switches = {switch.name: list(switch.pnic) for switch in client.get(second, "config.network.vswitch")}
    assert switches == {"vSwitch0": ["key-vim.host.PhysicalNic-vmnic0"], name: []}

    system = client.get(second, "configManager.networkSystem")
    with pytest.raises(vim.fault.ResourceInUse):
        system.RemovePortGroup(name)
    client.wait(machine.Destroy_Task())
    system.RemoveVirtualSwitch(name)
    assert network in client.all(vim.Network), "the other host has it"
    client.get(first, "configManager.networkSystem").RemoveVirtualSwitch(name)
    assert network not in client.all(vim.Network)


def test_what_the_stand_in_cannot_do_it_refuses(client: Client, name: str) -> None:
    machine = client.create(machine_spec(name))
    clone = vim.vm.CloneSpec(location=vim.vm.RelocateSpec(), powerOn=False, template=False)
    for start in (
        lambda: machine.CloneVM_Task(client.folder, name + "-clone", clone),
        lambda: machine.RelocateVM_Task(vim.vm.RelocateSpec()),
        machine.SuspendVM_Task,
    ):
        assert isinstance(failure(client, start()), vmodl.fault.NotSupported)


def test_a_unit_number_is_no_controllers_and_free(client: Client, name: str) -> None:
    machine = client.create(machine_spec(name))
    other = client.create(machine_spec(name + "-other"))
    path = disks_of(client, other)[0].backing.fileName
    for unit in (0, 7, 64):
        taken = failure(client, machine.ReconfigVM_Task(attach_spec(path, unit=unit)))
        assert isinstance(taken, vim.fault.InvalidDeviceSpec)
    no_controller = failure(client, machine.ReconfigVM_Task(attach_spec(path, controller=1003)))
    assert isinstance(no_controller, vim.fault.InvalidDeviceSpec)


def test_a_controller_may_go_with_its_last_disk(tmp_path: Path) -> None:
    with run_vsphere(tmp_path, drop_empty_controllers=True) as server:
        client = log_in(server)
        machine = client.create(machine_spec("worker", disks=2))
        first, second = disks_of(client, machine)
        client.wait(machine.ReconfigVM_Task(detach_spec(first)))
        client.wait(machine.ReconfigVM_Task(detach_spec(second)))
        again = machine.ReconfigVM_Task(attach_spec(first.backing.fileName))
        assert isinstance(failure(client, again), vim.fault.InvalidDeviceSpec)


def test_a_disk_can_be_made_without_a_machine(client: Client, name: str, server: VSphere) -> None:
    manager, datacenter = client.content.virtualDiskManager, client.all(vim.Datacenter)[0]
    client.content.fileManager.MakeDirectory(f"[LocalDS_0] {name}", datacenter)
    path = f"[LocalDS_0] {name}/data.vmdk"
    spec = vim.VirtualDiskManager.FileBackedVirtualDiskSpec(
        diskType="thin", adapterType="lsiLogic", capacityKb=DISK_BYTES // 1024
    )
    client.wait(manager.CreateVirtualDisk_Task(path, datacenter, spec))
    state = server.report()["disks"][path]
    assert manager.QueryVirtualDiskUuid(path, datacenter).replace(" ", "").replace("-", "") == state["uuid"].replace(
        "-", ""
    )
    assert path in server.report()["orphans"]
    client.wait(manager.DeleteVirtualDisk_Task(path, datacenter))
    assert path not in server.report()["disks"]
