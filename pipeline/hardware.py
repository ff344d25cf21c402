"""The hardware of the machine we run on, as far as it matters for building it again elsewhere."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import platform as python_platform
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
"""UEFI specification, 3.3: four bytes of attributes, then 1 when on."""
_DMI = (
    "sys_vendor",
    "product_name",
    "product_version",
    "product_family",
    "product_uuid",
    "product_serial",
    "board_vendor",
    "board_name",
    "chassis_asset_tag",
    "bios_vendor",
    "bios_version",
    "bios_date",
)
_CLOUDS = {
    # chassis_asset_tag (systemd/src/basic/virt.c; Oracle and Microsoft documentation on instance detection)
    "7783-7084-3265-9085-8269-3286-77": "azure",
    "OracleCloud.com": "oracle",
}
_VENDORS = (
    # beginnings of DMI strings (systemd/src/basic/virt.c, dmi_vendor_table)
    ("Amazon EC2", "aws"),
    ("Google", "gcp"),
    ("OpenStack", "openstack"),
    ("Alibaba Cloud", "alibaba"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("innotek GmbH", "virtualbox"),
    ("VirtualBox", "virtualbox"),
    ("Xen", "xen"),
    ("Parallels", "parallels"),
    ("QEMU", "kvm"),
    ("KVM", "kvm"),
    ("Bochs", "kvm"),
    ("Huawei Inc.", "huawei"),
)


def this_host(root: Path = Path("/")) -> dict[str, Any]:
    """Describe the running machine in values that JSON can hold; what cannot be found out is empty, never an error.

    name: host name. firmware: "bios" or "uefi". secure_boot: whether it is enforced. cpus: online. memory_bytes: as
    installed, where the kernel tells, else what it manages. nics: hardware interfaces with `mac` (the permanent one),
    `network` (the first IPv4 or IPv6 subnet, to map it by), `model` (the driver), `addresses` (with prefix length,
    without link-local ones; of bonds, bridges and VLANs on top of it, too). platform: aws, azure, vmware, kvm, ... or
    "physical", "virtual", "container". raw: machine id, DMI, OS release, kernel, disks, names of
    the interfaces.

    `root` is where /proc and /sys are looked for.
    """
    dmi = {key: value for key in _DMI if (value := _text(root / "sys/class/dmi/id" / key))}
    release = _os_release(root)
    return {
        "name": _text(root / "proc/sys/kernel/hostname") or socket.gethostname(),
        "firmware": "uefi" if (root / "sys/firmware/efi").is_dir() else "bios",
        "secure_boot": _secure_boot(root),
        "cpus": os.cpu_count() or 1,
        "memory_bytes": _memory(root),
        "nics": _nics(root),
        "platform": _platform(root, dmi),
        "raw": {
            "machine_id": _text(root / "etc/machine-id"),
            "dmi": dmi,
            "os_release": release,
            "kernel": python_platform.release(),
            "architecture": python_platform.machine(),
            "disks": _disks(root),
            "interfaces": {name: _text(root / "sys/class/net" / name / "address") for name in _interfaces(root)},
        },
    }


def _secure_boot(root: Path) -> bool:
    try:
        return (root / _SECURE_BOOT).read_bytes()[4:5] == b"\x01"
    except OSError:
        return False


def _memory(root: Path) -> int:
    """MemTotal lacks what the kernel and the firmware took; the sum of the memory blocks does not."""
    managed = 0
    for line in _text(root / "proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if key == "MemTotal" and value.split():
            managed = int(value.split()[0]) * 1024
    blocks = root / "sys/devices/system/memory"
    try:
        size = int(_text(blocks / "block_size_bytes"), 16)
    except ValueError:
        return managed
    installed = size * sum(_text(state) == "1" for state in blocks.glob("memory[0-9]*/online"))
    # A block is up to 2 GiB; a sum that is far off counts something else.
    return installed if managed <= installed <= managed + managed // 4 + size else managed


def _interfaces(root: Path) -> list[str]:
    """Names of the hardware's network interfaces."""
    folder = root / "sys/class/net"
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    except OSError:
        return []
    ethernet = [name for name in names if _text(folder / name / "type") == "1"]  # ARPHRD_ETHER
    hardware = [name for name in ethernet if (folder / name / "device").exists()]
    if not hardware:  # a container sees only virtual ones
        hardware = [name for name in ethernet if not (folder / name / "bridge").exists() and not name.startswith("ifb")]
    return hardware


def _nics(root: Path) -> list[dict[str, Any]]:
    folder = root / "sys/class/net"
    known = _addresses(root)
    nics = []
    for name in _interfaces(root):
        addresses = list(dict.fromkeys(address for level in _levels(folder, name) for address in known.get(level, [])))
        driver = folder / name / "device/driver"
        nics.append(
            {
                "mac": _text(folder / name / "bonding_slave/perm_hwaddr") or _text(folder / name / "address"),
                "network": str(ipaddress.ip_interface(addresses[0]).network) if addresses else "",
                "model": driver.resolve().name if driver.exists() else "",
                "addresses": addresses,
            }
        )
    return nics


def _levels(folder: Path, name: str) -> list[str]:
    """The interface and whatever is stacked on it."""
    found: list[str] = []
    waiting = [name]
    while waiting:
        level = waiting.pop(0)
        if level not in found:
            found.append(level)
            waiting += sorted(upper.name.removeprefix("upper_") for upper in (folder / level).glob("upper_*"))
    return found


def _addresses(root: Path) -> dict[str, list[str]]:
    """Addresses with prefix length by interface, IPv4 first: from ip(8), else from what the kernel shows directly."""
    found: dict[str, list[str]] = {}
    if root == Path("/"):
        with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
            done = subprocess.run(["ip", "-j", "addr"], capture_output=True, timeout=10, check=True)
            for link in json.loads(done.stdout):
                entries = sorted(link.get("addr_info", []), key=lambda entry: entry["family"])
                for entry in entries:
                    _add(found, link["ifname"], f"{entry['local']}/{entry['prefixlen']}")
            return found
        found.clear()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError, ValueError):
                    address, mask = (_ioctl_address(probe, name, code) for code in (0x8915, 0x891B))
                    _add(found, name, str(ipaddress.ip_interface(f"{address}/{mask}")))
    for line in _text(root / "proc/net/if_inet6").splitlines():
        fields = line.split()
        with contextlib.suppress(ValueError, IndexError):
            _add(found, fields[5], f"{ipaddress.IPv6Address(int(fields[0], 16))}/{int(fields[2], 16)}")
    return found


def _add(found: dict[str, list[str]], name: str, address: str) -> None:
    interface = ipaddress.ip_interface(address)
    if not interface.ip.is_link_local and not interface.ip.is_loopback:
        found.setdefault(name, []).append(str(interface))


def _ioctl_address(probe: socket.socket, name: str, code: int) -> str:
    """SIOCGIFADDR and SIOCGIFNETMASK (netdevice(7))."""
    answer = fcntl.ioctl(probe.fileno(), code, struct.pack("256s", name.encode()[:15]))
    return socket.inet_ntoa(answer[20:24])


def _platform(root: Path, dmi: dict[str, str]) -> str:
    if (root / "run/.containerenv").exists() or (root / ".dockerenv").exists():
        return "container"
    cloud = _CLOUDS.get(dmi.get("chassis_asset_tag", ""))
    if cloud:
        return cloud
    texts = [dmi.get(key, "") for key in ("product_name", "sys_vendor", "board_vendor", "bios_vendor")]
    for start, name in _VENDORS:
        if any(text.startswith(start) for text in texts):
            return name
    if texts[0] == "Virtual Machine" and texts[1].startswith("Microsoft"):
        return "hyperv"
    flags = next((line for line in _text(root / "proc/cpuinfo").splitlines() if line.startswith("flags")), "")
    if "hypervisor" in flags.split():
        return "virtual"
    return "physical"


def _os_release(root: Path) -> dict[str, str]:
    """os-release(5)."""
    text = _text(root / "etc/os-release") or _text(root / "usr/lib/os-release")
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}


def _disks(root: Path) -> list[dict[str, Any]]:
    disks = []
    for folder in sorted((root / "sys/block").glob("*")):
        if not (folder / "device").exists():
            continue
        sectors = _text(folder / "size")  # always of 512 bytes (linux/include/linux/types.h, sector_t)
        disks.append(
            {
                "name": folder.name,
                "size": int(sectors) * 512 if sectors.isdigit() else 0,
                "sector_size": int(_text(folder / "queue/logical_block_size") or 512),
                "serial": _text(folder / "serial") or _text(folder / "device/serial"),
                "model": _text(folder / "device/model"),
            }
        )
    return disks


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip(" \t\r\n\0")
    except OSError:
        return ""
