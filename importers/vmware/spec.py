"""vim.vm.ConfigSpec of a machine: what is given to CreateVM_Task or, wrapped, to ImportVApp."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pyVmomi import vim

from importers.vmware.cards import device_of
from importers.vmware.controllers import Slot, controllers_of
from importers.vmware.hardware import Choice
from importers.vmware.options import DiskFormat, VmwareOptions

MARKER = "failback.marker"
"""Advanced setting with the marker of the place, beside the instance UUID, which is the marker of the machine."""
MACHINE = "failback.machine"
LONGEST_NAME = 80
"""Characters of a machine's name."""
_FIRST_DISK = 2000
_LONGEST_HOME = 60


@dataclass(frozen=True, slots=True)
class NewDisk:
    """A disk that is made with the machine, empty, or filled through the import lease."""

    slot: Slot
    size: int
    """Bytes, a multiple of `hardware.SIZE_STEP`."""
    datastore: str
    """Its name."""
    format: DiskFormat = "thin"
    profile: str = ""
    """Id of a storage policy."""


@dataclass(frozen=True, slots=True)
class OldDisk:
    """A disk that exists, and is plugged in."""

    slot: Slot
    file: str
    """As vSphere writes it: `[datastore] folder/name.vmdk`."""
    mode: Literal["persistent", "independent_persistent"] = "persistent"


def meanwhile(name: str, sequence: int, slot: int) -> str:
    """Name of a machine while it is made: the earlier one may still have the name that it gets."""
    tail = f".failback-{sequence}-{slot}"
    return f"{name[: LONGEST_NAME - len(tail)]}{tail}"


def tried_name(name: str) -> str:
    """Name of a machine that is only tried out: its own name may fill all the room, and more is put behind it."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 10] + name[-10:]


def home_of(name: str, marker: uuid.UUID) -> str:
    """Folder and beginning of the file names of a machine: unique, and readable for whoever finds them. Disks on two
    datastores would otherwise have one name, and one address when they are uploaded."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:_LONGEST_HOME] or "machine"
    return f"{plain}-{marker.hex[:8]}"


def disk_file(disk: NewDisk, home: str) -> str:
    return f"[{disk.datastore}] {home}/{home}-{disk.slot.number}.vmdk"


def machine_spec(
    name: str,
    choice: Choice,
    options: VmwareOptions,
    marker: uuid.UUID,
    *,
    place: uuid.UUID,
    machine: str,
    datastore: str,
    disks: Sequence[NewDisk | OldDisk] = (),
    backings: Sequence[Any] = (),
    connected: bool = True,
    profile: str = "",
    settings: Mapping[str, str] | None = None,
) -> Any:
    """The whole machine, powered off. `marker`: its own, which becomes its instance UUID; `place`: that of its place;
    `machine`: its name at the source; `datastore`: where its home is; `backings`: one for each card of the choice;
    not `connected`: their cables are pulled; `settings`: more advanced ones."""
    if len(backings) != len(choice.cards):
        raise ValueError(f"{len(backings)} networks for {len(choice.cards)} adapters")
    home = home_of(name, marker)
    slots = tuple(disk.slot for disk in disks)
    devices = [_add(controller) for controller in controllers_of(slots)]
    devices += [disk_change(disk, home) for disk in disks]
    devices += [
        _add(device_of(number, card, backing, connected=connected))
        for number, (card, backing) in enumerate(zip(choice.cards, backings, strict=True))
    ]
    return vim.vm.ConfigSpec(
        name=name,
        guestId=choice.guest,
        version=f"vmx-{choice.version}" if choice.version else None,
        uuid=str(choice.smbios) if choice.smbios else None,
        instanceUuid=str(marker),
        files=vim.vm.FileInfo(vmPathName=f"[{datastore}] {home}/{home}.vmx"),
        numCPUs=choice.cpus,
        numCoresPerSocket=choice.cores,
        memoryMB=choice.memory >> 20,
        firmware=choice.firmware,
        bootOptions=vim.vm.BootOptions(efiSecureBootEnabled=choice.secure_boot) if choice.firmware == "efi" else None,
        annotation=options.notes or f"{machine}, brought home by failback",
        extraConfig=_settings(
            {
                **options.extra,
                # Guests that know their disks by serial number see them.
                "disk.EnableUUID": "TRUE",
                **(settings or {}),
                MARKER: str(place),
                MACHINE: machine,
            }
        ),
        vmProfile=_profile(profile),
        deviceChange=devices,
    )


def import_spec(config: Any) -> Any:
    """What ImportVApp takes."""
    return vim.vm.VmImportSpec(configSpec=config)


def disk_change(disk: NewDisk | OldDisk, home: str = "") -> Any:
    """Add one disk. `home` names the file of a new one; empty: vSphere does."""
    device = vim.vm.device
    common = {"key": _FIRST_DISK + disk.slot.number, "controllerKey": disk.slot.key, "unitNumber": disk.slot.unit}
    backing = device.VirtualDisk.FlatVer2BackingInfo
    if isinstance(disk, OldDisk):
        old = device.VirtualDisk(**common, backing=backing(fileName=disk.file, diskMode=disk.mode))
        return device.VirtualDeviceSpec(operation="add", device=old)
    new = device.VirtualDisk(
        **common,
        capacityInBytes=disk.size,
        capacityInKB=disk.size >> 10,
        backing=backing(
            fileName=disk_file(disk, home) if home else f"[{disk.datastore}]",
            diskMode="persistent",
            thinProvisioned=disk.format == "thin",
            eagerlyScrub=disk.format == "eager",
        ),
    )
    return device.VirtualDeviceSpec(operation="add", fileOperation="create", device=new, profile=_profile(disk.profile))


def _add(device: Any) -> Any:
    return vim.vm.device.VirtualDeviceSpec(operation="add", device=device)


def _settings(values: Mapping[str, str]) -> list[Any]:
    return [vim.option.OptionValue(key=key, value=value) for key, value in sorted(values.items())]


def _profile(identity: str) -> list[Any]:
    return [vim.vm.DefinedProfileSpec(profileId=identity)] if identity else []
