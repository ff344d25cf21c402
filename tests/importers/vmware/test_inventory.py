"""Names lead to one object, or to a sentence that says which ones there are."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from pyVmomi import vim

from importers.vmware import datastores, inventory, networks
from importers.vmware.attributes import known_attributes, set_attributes
from importers.vmware.choice import NoChoice
from importers.vmware.connection import Connection
from importers.vmware.machines import find_machine, machine_called, machines_called
from importers.vmware.policies import find_policy, fitting
from importers.vmware.properties import values_of
from pipeline.errors import TargetError, TargetMismatch, Unsupported
from vmware.site import Site, do, make_machine, marker


def test_the_place_in_a_vcenter_is_found_by_names(vcenter: Site) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection, datacenter="DC0")
    assert (site.datacenter.name, site.compute.name, site.pool.name) == ("DC0", "DC0_C0", "Resources")
    assert [host.name for host in site.usable] == ["DC0_C0_H0", "DC0_C0_H1"]
    assert all(host.cpus and host.memory and host.version for host in site.hosts)


def test_a_single_host_needs_no_names(esxi: Site) -> None:
    connection = esxi.connect()
    site = esxi.place(connection)
    assert site.datacenter.name == "ha-datacenter"
    assert len(site.hosts) == 1


def test_a_host_may_be_named_in_a_cluster_or_outside_of_one(vcenter: Site) -> None:
    connection = vcenter.connect()
    alone = vcenter.place(connection, host="DC0_H0")
    assert ([h.name for h in alone.hosts], isinstance(alone.compute.object, vim.ClusterComputeResource)) == (
        ["DC0_H0"],
        False,
    )
    member = vcenter.place(connection, cluster="DC0_C0", host="DC0_C0_H1")
    assert member.named_host is not None
    assert [h.name for h in member.hosts] == ["DC0_C0_H1"]
    assert vcenter.place(connection, cluster="", host="DC0_C0_H1").compute.name == "DC0_C0"


@pytest.mark.parametrize(
    ("said", "message", "remedy"),
    [
        ({"datacenter": "Home"}, "no datacenter called 'Home'", "there are: 'DC0'"),
        ({"datacenter": "folder/Home"}, "no datacenter at 'folder/Home'", "path"),
        ({"cluster": "prod"}, "no cluster called 'prod' in the datacenter DC0", "there are: 'DC0_C0'"),
        ({"cluster": "dc0_c0"}, "no cluster called 'dc0_c0'", "did you mean 'DC0_C0'?"),
        ({"cluster": ""}, "nothing says which cluster or host", "write `cluster: NAME`"),
        ({"host": "esx9"}, "no host called 'esx9'", "'DC0_C0_H0', 'DC0_C0_H1', 'DC0_H0'"),
        ({"cluster": "DC0_C0", "host": "DC0_H0"}, "no host called 'DC0_H0' in the cluster DC0_C0", "'DC0_C0_H0'"),
        ({"pool": "gold"}, "no resource pool called 'gold'", "create one"),
    ],
)
def test_what_is_not_there_or_not_said_is_told_with_what_there_is(
    vcenter: Site, said: dict[str, str], message: str, remedy: str
) -> None:
    with pytest.raises(NoChoice) as caught:
        vcenter.place(vcenter.connect(), **said)
    assert message in str(caught.value)
    assert remedy in caught.value.remedy


def test_pools_and_folders_are_found_by_path(vcenter: Site) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    spec = vim.ResourceConfigSpec(cpuAllocation=_share(), memoryAllocation=_share())
    gold = connection.order(lambda: site.pool.object.CreateResourcePool("gold", spec), "x")
    inner = connection.order(lambda: gold.CreateResourcePool("inner", spec), "x")
    assert inventory.find_pool(connection, site.compute, "gold/inner").object == inner
    assert inventory.find_pool(connection, site.compute, "inner").object == inner
    team = connection.order(lambda: site.vm_folder.object.CreateFolder("team"), "x")
    web = connection.order(lambda: team.CreateFolder("web/db"), "x")
    assert inventory.find_folder(connection, site, "/team").object == team
    assert inventory.find_folder(connection, site, "team/web%2fdb").object == web
    with pytest.raises(NoChoice, match="no folder called 'web' in the machine folder team"):
        inventory.find_folder(connection, site, "team/web")
    assert inventory.find_folder(connection, site, "").object == site.vm_folder.object


def _share() -> Any:
    return vim.ResourceAllocationInfo(
        reservation=0, limit=-1, expandableReservation=True, shares=vim.SharesInfo(level="normal", shares=0)
    )


def test_a_datastore_is_found_with_what_is_free(vcenter: Site) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    found = datastores.find_datastore(connection, site, "LocalDS_1")
    assert found.capacity >= found.free > 1 << 30
    assert {host.id for host in site.hosts} <= found.hosts
    assert datastores.free_bytes(connection, found.object, refresh=True) == found.free
    with pytest.raises(NoChoice, match="nothing says which datastore") as caught:
        datastores.find_datastore(connection, site, "")
    assert "'LocalDS_0', 'LocalDS_1'" in caught.value.remedy


def pod_of(connection: Connection, site: inventory.Site, name: str, *members: datastores.Datastore) -> Any:
    folder = values_of(connection, site.datacenter.object, "datastoreFolder")["datastoreFolder"]
    pod = connection.order(lambda: folder.CreateStoragePod(name), "x")
    do(connection, lambda: pod.MoveIntoFolder_Task([member.object for member in members]))
    return pod


def test_of_a_datastore_cluster_the_member_with_most_free_space_is_taken(vcenter: Site) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    both = datastores.all_datastores(connection, site)
    pod_of(connection, site, "gold", *both)
    make_machine(connection, site, "eats")  # from LocalDS_0
    there = datastores.all_datastores(connection, site)
    assert {d.pod for d in there} == {"gold"}
    assert datastores.find_datastore(connection, site, "gold") == max(there, key=lambda d: (d.free, d.name))
    assert datastores.find_datastore(connection, site, "LocalDS_0").name == "LocalDS_0"
    with pytest.raises(NoChoice) as caught:
        datastores.find_datastore(connection, site, "silver")
    assert "'gold'" in caught.value.remedy


def test_datastores_that_cannot_be_used_are_passed_over() -> None:
    def store(name: str, free: int, *, usable: bool = True) -> datastores.Datastore:
        return datastores.Datastore(None, name, free=free, usable=usable, pod="gold")

    there = [store("a", 10), store("b", 30, usable=False), store("c", 20)]
    assert datastores.pick(there, "gold", where="here").name == "c"
    with pytest.raises(NoChoice, match="the datastore b is not accessible, or in maintenance"):
        datastores.pick(there, "b", where="here")
    with pytest.raises(NoChoice, match="every member of the datastore cluster gold"):
        datastores.pick([store("b", 30, usable=False)], "gold", where="here")


def test_networks_of_either_kind_give_what_an_adapter_is_plugged_into(vcenter: Site) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    standard = networks.find_network(connection, site, "VM Network")
    assert standard.kind == "standard"
    assert networks.backing_of(connection, standard).deviceName == "VM Network"
    distributed = networks.find_network(connection, site, "DC0_DVPG0")
    assert distributed.kind == "distributed"
    port = networks.backing_of(connection, distributed).port
    assert (port.portgroupKey, bool(port.switchUuid)) == (distributed.key, True)
    assert networks.hosts_without(distributed, site) == []
    with pytest.raises(NoChoice) as caught:
        networks.find_network(connection, site, "prod-lan")
    assert "'VM Network'" in caught.value.remedy


def test_a_machine_is_found_by_its_marker_and_by_its_name(vcenter: Site) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    machine = make_machine(connection, site, "web-1", instanceUuid=str(marker()))
    assert find_machine(connection, marker()) == machine
    assert find_machine(connection, uuid.uuid4()) is None
    assert machine_called(connection, site.vm_folder, "web-1") == machine
    assert machine_called(connection, site.vm_folder, "web-2") is None
    assert machines_called(connection, connection.content.rootFolder, "web-1") == [machine]


def test_two_machines_with_one_marker_are_refused(vcenter: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    first = make_machine(connection, site, "web-1", instanceUuid=str(marker()))
    second = make_machine(connection, site, "copy of web-1")
    do(connection, lambda: second.ReconfigVM_Task(vim.vm.ConfigSpec(instanceUuid=str(marker()))))
    with pytest.raises(TargetMismatch, match="2 machines") as caught:
        find_machine(connection, marker())
    assert first._moId in str(caught.value)


def test_custom_attributes_are_defined_once_and_set(vcenter: Site) -> None:
    connection = vcenter.connect()
    machine = make_machine(connection, vcenter.place(connection), "web-1")
    set_attributes(connection, machine, {"owner": "team web", "cost": "42"})
    set_attributes(connection, machine, {"owner": "team db"})
    known = known_attributes(connection)
    values = values_of(connection, machine, "customValue")["customValue"]
    assert {v.key: v.value for v in values} == {known["owner"]: "team db", known["cost"]: "42"}


def test_a_single_host_has_neither_attributes_nor_policies(esxi: Site) -> None:
    connection = esxi.connect()
    machine = make_machine(connection, esxi.place(connection), "web-1")
    set_attributes(connection, machine, {"owner": "team web"})
    assert known_attributes(connection) == {}
    with pytest.raises(Unsupported, match="single host"):
        find_policy(connection, "gold")


def test_no_host_that_can_run_a_machine_is_told(vcenter: Site) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    for host in site.hosts:
        do(connection, lambda host=host: host.object.EnterMaintenanceMode_Task(0, None, None))
    with pytest.raises(TargetError, match="no host of DC0_C0 is connected"):
        inventory.check_usable(vcenter.place(connection))


def test_a_storage_policy_is_found_with_the_datastores_that_it_allows(vcenter: Site) -> None:
    connection = vcenter.connect()
    policy = find_policy(connection, "vSAN Default Storage Policy")
    assert fitting(connection, policy, datastores.all_datastores(connection, vcenter.place(connection)))
