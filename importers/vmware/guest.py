"""What vSphere calls the operating system of a machine (`guestId`), from what was recorded at the source."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any, Literal

from manifests.machine import Machine

Family = Literal["linux", "windows", "other"]
LAST = "otherGuest64"
_BY_RELEASE: dict[str, tuple[str, int, int]] = {
    # os-release(5) ID -> pattern of the id, first and last version that vSphere 8 and 9 know
    "rhel": ("rhel{}_64Guest", 5, 10),
    "centos": ("centos{}_64Guest", 6, 9),
    "ol": ("oracleLinux{}_64Guest", 6, 10),
    "sles": ("sles{}_64Guest", 10, 16),
    "debian": ("debian{}_64Guest", 4, 13),
}
_NO_VERSION = {
    "ubuntu": "ubuntu64Guest",
    "rocky": "rockylinux_64Guest",
    "almalinux": "almalinux_64Guest",
    "fedora": "fedora64Guest",
    "opensuse": "opensuse64Guest",
    "opensuse-leap": "opensuse64Guest",
    "opensuse-tumbleweed": "opensuse64Guest",
    "flatcar": "coreos64Guest",
    "coreos": "coreos64Guest",
    "photon": "vmwarePhoton64Guest",
}
_AMAZON = {"2": "amazonlinux2_64Guest", "2023": "amazonlinux3_64Guest"}
_KERNELS = ((6, "other6xLinux64Guest"), (5, "other5xLinux64Guest"), (4, "other4xLinux64Guest"))
_SINCE = {
    # hardware version that first knows the id: vim.vm.GuestOsDescriptor.GuestOsIdentifier and VMware's guest list [U]
    "debian11_64Guest": 17,
    "debian12_64Guest": 19,
    "debian13_64Guest": 21,
    "rhel9_64Guest": 17,
    "rhel10_64Guest": 21,
    "other5xLinux64Guest": 17,
    "other6xLinux64Guest": 20,
    "rockylinux_64Guest": 17,
    "almalinux_64Guest": 17,
    "sles16_64Guest": 14,
    "centos9_64Guest": 17,
    "amazonlinux3_64Guest": 17,
    "windows2019srvNext_64Guest": 17,
    "windows2022srvNext_64Guest": 20,
    "windows11_64Guest": 18,
}


def family_of(hardware: Machine, guest: str = "") -> Family:
    """By the id, where one is named, else by what was recorded."""
    if guest.startswith("win"):
        return "windows"
    release = _release(hardware)
    if release or "kernel" in hardware.raw or "inux" in guest or _known(guest):
        return "linux"
    return "windows" if str(hardware.raw.get("os", "")).lower().startswith("windows") else "other"


def candidates(hardware: Machine, wanted: str = "") -> list[str]:
    """Ids that fit, the best first; the last ones are known to every host."""
    return list(dict.fromkeys(filter(None, (wanted, *_fitting(hardware), *_general(hardware), LAST))))


def pick(hardware: Machine, wanted: str, known: Collection[str], version: int) -> str:
    """The best id that the hosts know; `known` empty: they did not tell, the built-in table decides by hardware
    `version` (0: the newest)."""
    for guest in candidates(hardware, wanted):
        if guest in known or (not known and (guest == wanted or not version or version >= _SINCE.get(guest, 0))):
            return guest
    return LAST


def _fitting(hardware: Machine) -> Iterator[str]:
    raw = hardware.raw
    if isinstance(there := raw.get("guest_id"), str):
        yield there  # it was a machine of vSphere
    release = _release(hardware)
    name, version = release.get("ID", ""), release.get("VERSION_ID", "")
    if name == "amzn" and version in _AMAZON:
        yield _AMAZON[version]
    for kin in (name, *release.get("ID_LIKE", "").split()):
        if kin in _NO_VERSION:
            yield _NO_VERSION[kin]
        if kin in _BY_RELEASE and (number := re.match(r"\d+", version)):
            pattern, first, last = _BY_RELEASE[kin]
            for older in range(min(int(number[0]), last), first - 1, -1):
                yield pattern.format(older)


def _general(hardware: Machine) -> Iterator[str]:
    if family_of(hardware) != "linux":
        return
    major = re.match(r"\d+", str(hardware.raw.get("kernel", "")))
    newest = int(major[0]) if major else 99
    yield from (guest for least, guest in _KERNELS if newest >= least)
    yield "otherLinux64Guest"


def _release(hardware: Machine) -> dict[str, str]:
    found: Any = hardware.raw.get("os_release")
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _known(guest: str) -> bool:
    patterns = [pattern.split("{")[0] for pattern, _first, _last in _BY_RELEASE.values()]
    return bool(guest) and (guest in (*_NO_VERSION.values(), *_AMAZON.values()) or guest.startswith(tuple(patterns)))
