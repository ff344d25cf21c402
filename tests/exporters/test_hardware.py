"""The description of the running machine, from a fake /proc and /sys and from the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manifests.machine import Machine
from pipeline.hardware import this_host


def files(root: Path, content: dict[str, str | bytes]) -> None:
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def test_this_machine_is_described_in_the_terms_of_a_manifest() -> None:
    host = this_host()
    assert json.loads(json.dumps(host)) == host
    machine = Machine.model_validate(host)
    assert machine.name
    assert machine.cpus >= 1
    assert machine.memory_bytes > 1 << 26


def test_a_machine_that_shows_nothing_is_described_as_far_as_it_goes(tmp_path: Path) -> None:
    host = this_host(tmp_path)
    assert host["firmware"] == "bios"
    assert host["secure_boot"] is False
    assert host["nics"] == []
    assert host["platform"] == "physical"
    assert host["memory_bytes"] == 0
    json.dumps(host)


def test_a_virtual_machine_with_a_bond_and_secure_boot(tmp_path: Path) -> None:
    net = "sys/class/net"
    content: dict[str, str | bytes] = {
        "proc/sys/kernel/hostname": "db1\n",
        "proc/meminfo": "MemTotal:        8000000 kB\nMemFree: 1 kB\n",
        "sys/devices/system/memory/block_size_bytes": "8000000\n",
        "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c": b"\6\0\0\0\1",
        "sys/class/dmi/id/sys_vendor": "VMware, Inc.\n",
        "sys/class/dmi/id/product_name": "VMware7,1\n",
        "etc/machine-id": "abc\n",
        "etc/os-release": 'ID=rhel\nPRETTY_NAME="Red Hat 9"\n# comment\n',
        "proc/net/if_inet6": "20010db8000000000000000000000007 03 40 00 80 bond0\n"
        "fe800000000000000000000000000001 03 40 20 80 bond0\n",
        f"{net}/lo/type": "772\n",
        f"{net}/bond0/type": "1\n",
        f"{net}/bond0/address": "00:50:56:00:00:01\n",
        "sys/block/sda/size": "2048\n",
        "sys/block/sda/device/model": "Virtual disk\n",
        "sys/block/loop0/size": "8\n",
    }
    for number in range(64):
        content[f"sys/devices/system/memory/memory{number}/online"] = "1\n"
    for number in (1, 2):
        content[f"{net}/ens{number}/type"] = "1\n"
        content[f"{net}/ens{number}/address"] = "00:50:56:00:00:01\n"
        content[f"{net}/ens{number}/bonding_slave/perm_hwaddr"] = f"00:50:56:00:00:0{number}\n"
        content[f"{net}/ens{number}/device/vendor"] = "0x15ad\n"
        content[f"{net}/ens{number}/upper_bond0/type"] = "1\n"
    files(tmp_path, content)
    for number in (1, 2):
        driver = tmp_path / "drivers" / "vmxnet3"
        driver.mkdir(parents=True, exist_ok=True)
        (tmp_path / net / f"ens{number}" / "device" / "driver").symlink_to(driver)
    host = this_host(tmp_path)
    assert (host["name"], host["firmware"], host["secure_boot"], host["platform"]) == ("db1", "uefi", True, "vmware")
    assert host["memory_bytes"] == 8 << 30
    assert [nic["mac"] for nic in host["nics"]] == ["00:50:56:00:00:01", "00:50:56:00:00:02"]
    for nic in host["nics"]:
        assert nic["model"] == "vmxnet3"
        assert nic["addresses"] == ["2001:db8::7/64"]
        assert nic["network"] == "2001:db8::/64"
    assert host["raw"]["os_release"] == {"ID": "rhel", "PRETTY_NAME": "Red Hat 9"}
    assert [disk["name"] for disk in host["raw"]["disks"]] == ["sda"]
    Machine.model_validate(host)


@pytest.mark.parametrize(
    ("dmi", "platform"),
    [
        ({"sys_vendor": "Amazon EC2"}, "aws"),
        ({"sys_vendor": "QEMU", "product_name": "Standard PC"}, "kvm"),
        ({"sys_vendor": "QEMU", "chassis_asset_tag": "OracleCloud.com"}, "oracle"),
        (
            {
                "sys_vendor": "Microsoft Corporation",
                "product_name": "Virtual Machine",
                "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77",
            },
            "azure",
        ),
        ({"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine"}, "hyperv"),
        ({"sys_vendor": "Microsoft Corporation", "product_name": "Surface"}, "physical"),
        ({"sys_vendor": "Dell Inc."}, "physical"),
    ],
)
def test_platforms_are_known_by_their_firmware(tmp_path: Path, dmi: dict[str, str], platform: str) -> None:
    files(tmp_path, {f"sys/class/dmi/id/{key}": value for key, value in dmi.items()})
    assert this_host(tmp_path)["platform"] == platform
