"""A mapping says what a machine becomes, or which of its keys is wrong."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from transfer.support import Workbench, make_disk

from manifests.machine import Machine, Nic
from manifests.manifest import Manifest
from pipeline import mapping as mapping_module
from pipeline.errors import UsageError
from pipeline.finding import Finding
from pipeline.mapping import Mapping, parse_mapping
from pipeline.sizes import parse_size
from pipeline.wanted import Wanted, resolve

GIB = 1 << 30
MACHINE = Machine(
    name="db-1",
    cpus=2,
    memory_bytes=4 * GIB,
    firmware="uefi",
    secure_boot=True,
    nics=(
        Nic(mac="52:54:00:00:00:01", network="VM Network", model="vmxnet3", addresses=("10.0.0.5/24",)),
        Nic(mac="52:54:00:00:00:02", network="backup"),
        Nic(mac="52:54:00:00:00:03", network="dmz"),
    ),
)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Two disks."""
    root = tmp_path_factory.mktemp("mapping")
    bench = Workbench(root)
    bench.export(*(make_disk(root / str(i), 1 << 20) for i in range(2)), machine="db-1", hardware=MACHINE)
    return bench.point(machine="db-1").manifest


def parsed(text: str) -> Mapping:
    return parse_mapping(yaml.safe_load(text), where="map.yaml")


def wanted(manifest: Manifest, text: str) -> Wanted:
    return resolve(parsed(text), manifest, "qemu")


def test_the_example_in_the_docstring_is_a_mapping() -> None:
    example = "\n".join(line[4:] for line in (mapping_module.__doc__ or "").splitlines() if line.startswith("    "))
    mapping = parsed(example)
    assert mapping.memory == 8 * GIB
    assert mapping.of("db-1").memory == 16 * GIB
    assert mapping.networks["backup"] is None


def test_a_mapping_that_says_nothing_leaves_the_machine_as_it_was_but_isolated(manifest: Manifest) -> None:
    machine = wanted(manifest, "")
    assert (machine.name, machine.hardware) == ("db-1", MACHINE)
    assert [(n.name, n.mac, n.source) for n in machine.networks] == [
        (None, nic.mac, nic.network) for nic in MACHINE.nics
    ]
    assert {finding.severity for finding in machine.findings} == {"warning"}
    assert all("will be isolated" in finding.message and finding.remedy for finding in machine.findings)
    assert sorted(machine.disks) == [0, 1]


def test_networks_go_where_the_mapping_says(manifest: Manifest) -> None:
    machine = wanted(
        manifest, 'networks: {"VM Network": prod, backup: null, "*": {name: rest, model: e1000e}}\nmac: new'
    )
    first, second = machine.networks
    assert (first.name, first.mac, first.model, first.addresses) == ("prod", "", "vmxnet3", ("10.0.0.5/24",))
    assert (second.name, second.model, second.source) == ("rest", "e1000e", "dmz")
    assert machine.findings == ()


def test_an_adapter_that_the_mapping_forgot_is_an_error_and_a_network_nobody_has_a_warning(manifest: Manifest) -> None:
    found = wanted(manifest, 'networks: {"VM Network": prod, backup: null, vm-network: prod}').findings
    assert [(f.severity, f.subject) for f in found] == [("error", "network dmz"), ("warning", "network vm-network")]
    assert "'VM Network'" in found[1].remedy


@pytest.mark.parametrize("networks", ["{lan: prod}", "{'*': prod}"])
def test_a_mapping_of_networks_for_a_machine_without_adapters_is_told(tmp_path: Path, networks: str) -> None:
    bench = Workbench(tmp_path)
    bench.export(make_disk(tmp_path / "disk", 1 << 20), machine="bare", hardware=Machine(name="bare"))
    machine = wanted(bench.point(machine="bare").manifest, f"networks: {networks}")
    assert machine.networks == ()
    [finding] = machine.findings
    assert (finding.severity, finding.subject) == ("warning", "networks")
    assert "--nic" in finding.remedy
    assert finding in machine.rehearsal().findings


def test_what_is_said_for_one_machine_wins_and_the_rest_holds(manifest: Manifest) -> None:
    machine = wanted(
        manifest,
        """
        name: "{name}-home"
        cpus: 8
        memory: 2GiB
        storage: slow
        disks: {0: {bus: sata, storage: fast}}
        networks: {"*": {isolated: true}}
        options: {qemu: {a: 1, b: 1}, vmware: {c: 1}}
        machines:
          db-1: {memory: 6GiB, disks: {0: {bus: nvme}}, options: {qemu: {b: 2}}, networks: {dmz: prod}}
          other: {cpus: 64}
        """,
    )
    assert (machine.name, machine.hardware.cpus, machine.hardware.memory_bytes) == ("db-1-home", 8, 6 * GIB)
    assert (machine.disks[0].bus, machine.disks[0].storage) == ("nvme", "fast")
    assert (machine.disks[1].bus, machine.disks[1].storage) == (None, "slow")
    assert machine.options == {"a": 1, "b": 2}
    assert [n.name for n in machine.networks] == [None, None, "prod"]


def test_the_command_line_wins_over_the_file_for_every_machine(manifest: Manifest) -> None:
    mapping = parsed("format: raw\nmachines: {db-1: {format: vmdk, disks: {1: {device: '/dev/sdb:size=1'}}}}")
    said = mapping.said(format="qcow2", disks={0: {"device": "/dev/sdc:size=7"}}, name=None)
    machine = resolve(said, manifest, "files")
    assert [machine.disks[n].format for n in (0, 1)] == ["qcow2", "qcow2"]
    assert [machine.disks[n].device for n in (0, 1)] == ["/dev/sdc:size=7", "/dev/sdb:size=1"]


@pytest.mark.parametrize(
    ("text", "subject", "severity"),
    [
        ("memory: 100MiB", "memory", "error"),
        ("memory: 1GiB", "memory", "warning"),
        ("firmware: bios", "firmware", "warning"),
        ("disks: {2: {bus: sata}}", "disk 2", "error"),
        ("networks: {'*': {model: e1000e}}", "network *", "error"),
    ],
)
def test_what_is_doubtful_is_a_finding_with_a_remedy(
    manifest: Manifest, text: str, subject: str, severity: str
) -> None:
    networks = "" if "networks" in text else "\nnetworks: {'*': lan}"
    found = wanted(manifest, text + networks).findings
    assert {(f.subject, f.severity) for f in found} == {(subject, severity)}
    assert all(f.remedy for f in found)


def test_with_bios_there_is_no_secure_boot(manifest: Manifest) -> None:
    assert not wanted(manifest, "firmware: bios").hardware.secure_boot


def test_a_rehearsal_is_isolated_under_another_name_and_networks_stop_nobody(manifest: Manifest) -> None:
    machine = wanted(manifest, "networks: {dmz: prod}\nmemory: 1GiB").rehearsal()
    assert machine.name == "db-1-rehearsal"
    assert all(network.name is None for network in machine.networks)
    assert {f.severity for f in machine.findings} == {"warning"}
    assert any(f.subject == "memory" for f in machine.findings)
    assert wanted(manifest, "").rehearsal().findings == ()


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("nets: {}", "map.yaml: nets is not known", "networks"),
        ("memory: 8", "memory: 8 has no unit", ""),
        ("memory: -3GiB", "memory: '-3GiB' is not a size", ""),
        ("memory: 0.1K\ncpus: 0", "cpus: ", ""),
        ("networks: {a: {nam: x}}", "networks.a.nam is not known", "isolated"),
        ("networks: {a: 5}", "networks.a: this is no network", ""),
        ("networks: {a: ''}", "networks.a.name: ", ""),
        ("disks: {0: {bus: scsi}}", "disks.0.bus: input should be 'virtio'", ""),
        ("disks: {x: {}}", "disks.x: ", ""),
        ("disks: {0: {buss: 1}}", "disks.0.buss is not known", "bus"),
        ("machines: {a: {foo: 1}}", "machines.a.foo is not known", "memory"),
        ("machines: {a: {disks: {0: {foo: 1}}}}", "machines.a.disks.0.foo is not known", "storage"),
        ("machines: {a: {machines: {}}}", "machines.a.machines is not known", ""),
        ("name: '{host}'", "only {name} can be filled in", ""),
        ("name: '{name:{host}}'", "only {name} can be filled in", ""),
        ('name: "x\\ntouch /tmp/y #"', "a name has one line", ""),
        ("name: '{'", "name: ", ""),
        ("name: ' '", "the name is empty", ""),
        ("firmware: efi", "firmware: input should be 'bios' or 'uefi'", ""),
        ("[1]", "map.yaml is not a mapping", "networks"),
        ("5: 3", "5: ", ""),
    ],
)
def test_what_cannot_be_is_named_with_file_and_key(text: str, message: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(text)
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.remedy


_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*Mapping.model_fields, "0", "*", "bus", "model"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(_JSON)
def test_whatever_a_file_holds_it_is_a_mapping_or_a_usage_error(document: Any) -> None:
    with contextlib.suppress(UsageError):
        parse_mapping(document, where="x").of("vm")


@pytest.mark.parametrize(
    ("text", "count"), [("8GiB", 8 * GIB), ("512 m", 512 << 20), ("1.5G", 3 * GIB // 2), ("2TB", 2 << 40), ("4k", 4096)]
)
def test_sizes_are_powers_of_two_with_a_unit(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "8", "GiB", "-1G", "1e3G", "8GiBs", "1,5G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_errors_always_have_a_remedy(manifest: Manifest, tmp_path: Path) -> None:
    texts = ["networks: {x: y}", "memory: 1MiB", "disks: {9: {bus: ide}}", "networks: {'*': {model: x}}"]
    found: list[Finding] = [f for text in texts for f in wanted(manifest, text).findings]
    assert {f.severity for f in found} == {"error", "warning"}
    assert all(f.remedy for f in found)
