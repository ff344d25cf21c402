"""What is wrong is said before anything is done, each with what helps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pyVmomi import vim

from importers.vmware import inventory, layer, networks, plan, preflight
from importers.vmware.adoption import _disks, adoption_findings
from importers.vmware.choice import NoChoice
from importers.vmware.connection import Connection
from importers.vmware.datastores import Datastore, all_datastores
from importers.vmware.environment import Environment, look_around
from importers.vmware.networks import PortGroup
from importers.vmware.placing import fitting_hosts, largest_stream, place_disks, space, streams
from importers.vmware.uploads import try_doors, upload_address
from importers.vmware.wiring import isolation_of, port_security
from manifests.manifest import Manifest
from pipeline.finding import Finding
from pipeline.target import Intent
from vmware.points import GIB, disk, machine, point, wanted
from vmware.site import Site, devices_of, do, make_machine, marker

BOOT = Intent("production", boots=True)


@pytest.fixture
def doors(vcenter: Site) -> dict[str, str]:
    """Upload addresses: the hosts of the simulator have names that nobody knows; its own address stands for theirs."""
    return {f"DC0_C0_H{number}": vcenter.address for number in range(2)}


def look(
    target: Site, manifest: Manifest, *, ours: bool = False, mapping: dict[str, Any] | None = None, **options: Any
) -> list[Finding]:
    connection = target.connect(**options)
    said = wanted(manifest, **(mapping or {}))
    return preflight.machine(connection, target.options(**options), manifest, said, BOOT, marker(1) if ours else None)


def severe(findings: list[Finding]) -> list[Finding]:
    return [f for f in findings if f.severity != "note"]


def about(findings: list[Finding], subject: str) -> Finding:
    """The worst one."""
    found = [f for f in findings if f.subject == subject]
    assert found, f"nothing about {subject} in {findings}"
    first = min(found, key=lambda f: ("error", "warning", "note").index(f.severity))
    assert first.remedy or first.severity == "note"
    return first


def test_a_machine_that_fits_has_nothing_but_notes(vcenter: Site, doors: dict[str, str]) -> None:
    found = look(vcenter, point(), hosts=doors)
    assert severe(found) == []
    assert "reserved for snapshots (10 % of the data)" in about(found, "datastore LocalDS_0").message


def test_the_same_holds_for_a_single_host(esxi: Site) -> None:
    assert severe(look(esxi, point())) == []


@pytest.mark.parametrize(
    ("options", "mapping", "subject", "message"),
    [
        ({"cluster": "prod"}, {}, "vSphere", "no cluster called 'prod'"),
        ({"datastore": "fast"}, {}, "disk 0", "no datastore called 'fast'"),
        ({}, {"storage": "slow"}, "disk 0", "no datastore called 'slow'"),
        ({}, {"format": "qcow2"}, "disk 0", "'qcow2' is no format"),
        ({}, {"disks": {0: {"device": "/dev/sdb:size=1"}}}, "disk 0", "does not use /dev/sdb"),
        ({}, {"folder": "/failback"}, "folder", "no folder called 'failback'"),
        ({}, {"networks": {"*": "prod-lan"}}, "network prod-lan", "no network called 'prod-lan'"),
        ({}, {"name": "x" * 81}, "name", "81 characters"),
        ({}, {"cpus": 64}, "cpus", "64 CPUs are wanted"),
        ({}, {"memory": "900GiB"}, "memory", "the largest usable host has"),
        ({"version": "vmx-99"}, {}, "version", "not every usable host"),
        ({"isolated": "nowhere"}, {}, "network nowhere", "no network called 'nowhere'"),
    ],
)
def test_what_the_mapping_asks_for_and_the_site_lacks_is_an_error(
    vcenter: Site, doors: dict[str, str], options: Any, mapping: Any, subject: str, message: str
) -> None:
    finding = about(look(vcenter, point(), mapping=mapping, hosts=doors, **options), subject)
    assert (finding.severity, message in finding.message) == ("error", True), finding
    assert finding.remedy


def test_disks_that_do_not_fit_are_an_error_and_a_scarce_reserve_a_warning() -> None:
    site, options = _no_site(), Site("h:1", "u", "p", "00" * 32, esxi=True).options(datastore="ds")
    disks = (disk(0, size=40 * GIB, data=10 * GIB), disk(1, size=10 * GIB, data=GIB))
    manifest = point(machine(), *disks)

    def verdict(free: int, held: int = 0, **mapping: Any) -> str:
        there = [Datastore(_Thing("ds-1"), "ds", free=free, capacity=100 * GIB)]
        placements, found = place_disks(there, site, disks, wanted(manifest, **mapping), options)
        assert not found
        return next(space(placements, disks, options, GIB, {"ds-1": held})).severity

    assert verdict(20 * GIB) == "note"
    assert verdict(11 * GIB) == "warning"
    assert verdict(10 * GIB) == "error"
    assert verdict(3 * GIB, held=11 * GIB) == "note", "what is staged already needs no room"
    assert verdict(40 * GIB, format="thick") == "error", "thick disks take their whole size"


class _Thing:
    """Of a managed object, what is compared here."""

    def __init__(self, identity: str) -> None:
        self._moId = identity


def _no_site() -> inventory.Site:
    nothing = inventory.Entity(None, "here")
    return inventory.Site(nothing, nothing, (), None, nothing, nothing)


def test_a_disk_too_large_for_its_datastore_is_an_error() -> None:
    options = Site("h:1", "u", "p", "00" * 32, esxi=True).options(datastore="ds")
    there = [Datastore(_Thing("ds-1"), "ds", free=100 * GIB, largest_disk=4 * GIB)]
    manifest = point()
    _placements, found = place_disks(there, _no_site(), manifest.disks, wanted(manifest), options)
    assert [(f.severity, f.subject) for f in found] == [("error", "disk 0")]


def test_a_host_is_taken_that_has_every_datastore_and_network() -> None:
    hosts = [inventory.Host(_Thing(f"host-{number}"), f"esx{number}") for number in range(3)]
    site = replace(_no_site(), hosts=tuple(hosts), compute=inventory.Entity(None, "cluster"))
    fast = Datastore(_Thing("ds-1"), "fast", hosts=frozenset({"host-1", "host-2"}))
    lan = PortGroup(_Thing("network-1"), "lan", hosts=frozenset({"host-0", "host-2"}))
    apart = PortGroup(_Thing("network-2"), "apart", hosts=frozenset({"host-0"}))
    everywhere = Datastore(_Thing("ds-2"), "everywhere")
    assert fitting_hosts(site, [fast, everywhere], []) == hosts[1:]
    assert fitting_hosts(site, [fast], [lan]) == [hosts[2]]
    with pytest.raises(NoChoice, match="no usable host of cluster has the datastore fast, the network apart together"):
        fitting_hosts(site, [fast], [apart])


def test_a_datastore_and_a_network_that_no_host_has_together_are_an_error(
    vcenter: Site, doors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a cluster that does not balance its load gets no machine then."""
    connection = vcenter.connect()
    site = vcenter.place(connection)
    real = networks.all_networks(connection, site)
    first, second = (host.id for host in site.hosts)
    there = [replace(n, hosts=frozenset({second})) if n.name == "VM Network" else n for n in real]
    for module in (preflight, plan):
        monkeypatch.setattr(module, "all_networks", lambda *_all: there)
    stores = [replace(d, hosts=frozenset({first})) for d in all_datastores(connection, site) if d.name == "LocalDS_0"]
    monkeypatch.setattr(preflight, "all_datastores", lambda *_all: stores)
    assert about(look(vcenter, point(), hosts=doors), "host").severity == "error"
    monkeypatch.setattr(plan, "values_of", lambda *_all: {})
    with pytest.raises(NoChoice, match="together"):
        plan.host_of(connection, site, stores, ["VM Network"])
    assert plan.host_of(connection, site, [], ["VM Network"])._moId == second


def test_a_stream_that_would_reach_2_tib_wants_the_worker() -> None:
    fits, large = (
        disk(0, size=4 << 40, data=(2 << 40) * 65536 // 66048 - (1 << 30)),
        disk(1, size=4 << 40, data=2 << 40),
    )
    assert largest_stream(fits) < 2 << 40 <= largest_stream(large)
    assert [f.subject for f in streams((fits, large), worker=False)] == ["disk 1"]
    assert [f.severity for f in streams((fits, large), worker=False)] == ["error"]
    assert [f.severity for f in streams((fits, large), worker=True)] == ["note"]


def test_another_machine_of_that_name_is_an_error_and_our_own_is_not(vcenter: Site, doors: dict[str, str]) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    ours = make_machine(connection, site, "web-1", instanceUuid=str(marker(1)))
    do(connection, lambda: ours.CreateSnapshot_Task(layer.NAME, "", False, False))
    assert about(look(vcenter, point(), hosts=doors), "name").severity == "error"
    assert severe(look(vcenter, point(), hosts=doors, ours=True)) == [], "nor is the layer that it runs on"
    assert about(
        look(vcenter, point(), hosts=doors, mapping={"name": "web-1-home"}),
        "vSphere" if False else "datastore LocalDS_0",
    )


def card_in(network: str, mac: str) -> Any:
    device = vim.vm.device
    return device.VirtualVmxnet3(
        key=-1,
        addressType="manual",
        macAddress=mac,
        backing=device.VirtualEthernetCard.NetworkBackingInfo(deviceName=network),
    )


def test_an_address_that_another_machine_has_is_an_error_while_that_runs(vcenter: Site, doors: dict[str, str]) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    other = make_machine(connection, site, "old web", (card_in("VM Network", "52:54:00:00:00:01"),))
    finding = about(look(vcenter, point(), hosts=doors), "network VM Network")
    assert (finding.severity, "old web" in finding.message) == ("warning", True)
    do(connection, other.PowerOnVM_Task)
    assert about(look(vcenter, point(), hosts=doors), "network VM Network").severity == "error"
    assert severe(look(vcenter, point(), hosts=doors, mapping={"mac": "new"})) == []
    apart = {"networks": {"*": {"isolated": True}}}
    assert severe(look(vcenter, point(), hosts=doors, mapping=apart)) == []


def test_port_security_of_standard_port_groups_is_read(vcenter: Site) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    group = PortGroup(None, "VM Network", "standard")
    assert port_security(connection, group, site) == "accept"
    assert port_security(connection, PortGroup(None, "x", "opaque"), site) == "unknown"


def test_port_security_that_rejects_is_a_warning_for_new_addresses(
    vcenter: Site, doors: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importers.vmware.wiring.port_security", lambda *_: "reject")
    finding = about(look(vcenter, point(), hosts=doors, mapping={"mac": "new"}), "network VM Network")
    assert (finding.severity, "port security" in finding.message) == ("warning", True)
    assert severe(look(vcenter, point(), hosts=doors, mapping={"mac": "keep"})) == []


def test_a_network_for_rehearsals_with_a_way_out_is_an_error(vcenter: Site, doors: dict[str, str]) -> None:
    """`VM Network` of the simulator is on a switch with an uplink."""
    connection = vcenter.connect()
    site = vcenter.place(connection)
    assert isolation_of(connection, site, PortGroup(None, "VM Network")) == ["DC0_C0_H0", "DC0_C0_H1"]
    finding = about(look(vcenter, point(), hosts=doors, isolated="VM Network"), "network VM Network")
    assert (finding.severity, "uplinks" in finding.message) == ("error", True)
    distributed = about(look(vcenter, point(), hosts=doors, isolated="DC0_DVPG0"), "network DC0_DVPG0")
    assert distributed.severity == "warning"


def test_hosts_that_take_no_uploads_are_told_and_only_stop_what_has_no_other_way(vcenter: Site) -> None:
    found = look(vcenter, point())
    assert about(found, "host DC0_C0_H0").severity == "error"
    assert "hosts" in about(found, "host DC0_C0_H0").remedy
    half = look(vcenter, point(), hosts={"DC0_C0_H1": vcenter.address})
    assert [f.severity for f in half if f.subject.startswith("host ")] == ["warning"]
    with_worker = look(vcenter, point(), worker={"network": "VM Network"})
    assert {f.severity for f in with_worker if f.subject.startswith("host ")} == {"warning"}


def test_a_host_with_another_certificate_than_vcenter_knows_is_not_believed(
    vcenter: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    options = vcenter.options(hosts={h.name: vcenter.address for h in site.hosts})
    assert [d.trouble for d in try_doors(connection, options, site)] == ["", ""]
    prints = [{"summary.config.sslThumbprint": "AB:" * 19 + "AB"}] * 2
    monkeypatch.setattr("importers.vmware.uploads.values_of_all", lambda *_: prints)
    assert all("shows the certificate" in d.trouble for d in try_doors(connection, options, site))


def test_uploads_go_where_the_options_say() -> None:
    options = Site("h:1", "u", "p", "00" * 32, esxi=True).options(hosts={"esx1": "192.0.2.1:8443"})
    assert upload_address(options, "esx1") == ("192.0.2.1", 8443)
    assert upload_address(options, "esx2", 443) == ("esx2", 443)


def test_the_newest_hardware_version_that_all_hosts_have_is_taken(vcenter: Site) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    found = look_around(connection, site)
    assert found.version == max(found.versions) >= 19
    assert look_around(connection, site, "vmx-13").version == 13


def test_hosts_that_tell_nothing_are_judged_by_their_release(vcenter: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = vcenter.connect()
    site = vcenter.place(connection)
    monkeypatch.setattr(vim.EnvironmentBrowser, "QueryConfigOptionDescriptor", lambda _self: [])
    old = replace(site, hosts=(replace(site.hosts[0], version="6.7.0"), replace(site.hosts[1], version="8.0.3")))
    assert look_around(connection, old) == Environment(14, (11, 13, 14))


def test_a_clock_that_is_far_off_is_told(vcenter: Site, doors: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [f for f in look(vcenter, point(), hosts=doors) if f.subject == "clock"]
    monkeypatch.setattr("importers.vmware.preflight.SKEW_SECONDS", 0.0)
    assert about(look(vcenter, point(), hosts=doors), "clock").severity == "warning"


def test_the_free_licence_of_a_single_host_is_an_error(esxi: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator has the evaluation licence; the free one is told by its edition."""
    monkeypatch.setattr("importers.vmware.preflight._FREE", ("eval",))
    finding = about(look(esxi, point()), "licence")
    assert (finding.severity, "only reads" in finding.message) == ("error", True)


def test_the_doctor_says_what_is_there_and_what_is_missing(vcenter: Site, doors: dict[str, str]) -> None:
    connection = vcenter.connect()
    found = preflight.platform(connection, vcenter.options(hosts=doors))
    assert severe(found) == []
    assert "VMware vCenter" in about(found, "vSphere").message
    assert "worker" in about(found, "worker").remedy
    missing = preflight.platform(vcenter.connect(), vcenter.options(hosts=doors, worker={"network": "nowhere"}))
    assert about(missing, "worker").severity == "error"


def test_a_login_that_fails_is_one_finding(vcenter: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILBACK_VMWARE_PASSWORD", "wrong")
    [finding] = preflight.platform(vcenter.connect(), vcenter.options())
    assert (finding.severity, "password" in finding.message) == ("error", True)


# -- machines that exist -----------------------------------------------------------------------------------------------


@pytest.fixture
def adopted(vcenter: Site) -> tuple[Connection, Any]:
    connection = vcenter.connect()
    device = vim.vm.device
    bus = device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing")
    plain = device.VirtualDisk(
        key=2000,
        controllerKey=1000,
        unitNumber=0,
        capacityInKB=8192,
        backing=device.VirtualDisk.FlatVer2BackingInfo(diskMode="persistent", thinProvisioned=True, fileName=""),
    )
    site = vcenter.place(connection)
    spec = vim.vm.ConfigSpec(
        name="web-1",
        guestId="otherGuest64",
        numCPUs=1,
        memoryMB=64,
        files=vim.vm.FileInfo(vmPathName="[LocalDS_0]"),
        deviceChange=[
            device.VirtualDeviceSpec(operation="add", device=bus),
            device.VirtualDeviceSpec(operation="add", fileOperation="create", device=plain),
        ],
    )
    return connection, do(connection, lambda: site.vm_folder.object.CreateVM_Task(spec, site.pool.object, None))


def test_a_plain_machine_can_be_taken_over(adopted: tuple[Connection, Any]) -> None:
    connection, there = adopted
    assert adoption_findings(connection, there) == []


def test_foreign_snapshots_and_those_of_backups_are_errors_and_ours_are_not(adopted: tuple[Connection, Any]) -> None:
    connection, there = adopted
    do(connection, lambda: there.CreateSnapshot_Task("failback layer", "", False, False))
    assert adoption_findings(connection, there, ours=["failback layer"]) == []
    do(connection, lambda: there.CreateSnapshot_Task("VEEAM BACKUP TEMPORARY SNAPSHOT", "", False, False))
    [finding] = adoption_findings(connection, there, ours=["failback layer"])
    assert (finding.severity, "a backup seems to run" in finding.message) == ("error", True)


def test_disks_that_no_snapshot_holds_are_errors(adopted: tuple[Connection, Any]) -> None:
    connection, there = adopted
    [plain] = [d for d in devices_of(connection, there) if isinstance(d, vim.vm.device.VirtualDisk)]
    plain.backing.diskMode = "independent_persistent"
    plain.backing.sharing = "sharingMultiWriter"
    edit = vim.vm.device.VirtualDeviceSpec(operation="edit", device=plain)
    do(connection, lambda: there.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[edit])))
    found = adoption_findings(connection, there)
    assert [(f.severity, f.subject) for f in found] == [("error", "disk 0")] * 2
    assert "no snapshot holds it" in found[0].message
    assert "other machines may write it" in found[1].message


def test_a_raw_device_is_an_error() -> None:
    raw = vim.vm.device.VirtualDisk(
        key=2000,
        capacityInKB=1,
        backing=vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo(fileName="[ds] x.vmdk", diskMode="persistent"),
    )
    assert [f.message for f in _disks([raw])] == ["it is a raw device (RDM)"]


def test_a_template_is_an_error(adopted: tuple[Connection, Any]) -> None:
    connection, there = adopted
    connection.order(there.MarkAsTemplate, "x")
    assert [f.message for f in adoption_findings(connection, there)] == ["it is a template"]
