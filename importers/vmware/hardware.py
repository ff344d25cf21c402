"""The machine near to what it was: controllers, cards and firmware that vSphere has and its system has drivers for."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from importers.vmware import guest
from importers.vmware.cards import Card, cards_of
from importers.vmware.controllers import MOST_DISK, Bus, Slot, slots_of
from importers.vmware.environment import Environment
from importers.vmware.options import VmwareOptions
from manifests.machine import Machine
from manifests.manifest import Disk
from pipeline.finding import Finding
from pipeline.wanted import Wanted

SIZE_STEP = 1024
"""Sizes of virtual disks are multiples of this many bytes (VirtualDisk.capacityInKB)."""
MEMORY_STEP = 4 << 20
"""Memory is given in multiples of 4 MiB."""
SECURE_BOOT_VERSION = 13
NVME_VERSION = 13
MOST_CORES = 16
"""Of a socket that we choose ourselves: hosts with fewer cores a socket are rare, and systems that are licensed by the
socket see few."""
_BUSES: dict[str, Bus] = {
    "sata": "sata",
    "ahci": "sata",
    "ata": "sata",
    "ide": "ide",
    "nvme": "nvme",
    "pvscsi": "pvscsi",
    "paravirtual": "pvscsi",
    "lsisas": "lsisas",
    "lsisas1068": "lsisas",
    "mptsas": "lsisas",
    "sas": "lsisas",
    "lsilogic": "lsilogic",
    "buslogic": "lsilogic",
}
_VMWARE_SERIAL = re.compile(r"^VMware-((?:[0-9a-f]{2}[ -]){15}[0-9a-f]{2})$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and what is to be said about it."""

    firmware: Literal["bios", "efi"]
    secure_boot: bool
    version: int
    """Hardware version; 0: the platform's default."""
    guest: str
    cpus: int
    cores: int
    """CPUs of a socket."""
    memory: int
    """Bytes."""
    slots: tuple[Slot, ...]
    """One for each disk, in the order of their numbers."""
    cards: tuple[Card, ...]
    smbios: uuid.UUID | None
    """SMBIOS UUID in vSphere's order of bytes; None: a new one."""
    findings: tuple[Finding, ...] = ()


def choose_hardware(
    disks: Sequence[Disk], wanted: Wanted, options: VmwareOptions, environment: Environment | None = None
) -> Choice:
    """Never fails: what cannot be had is an error among the findings."""
    hardware, environment = wanted.hardware, environment or Environment()
    findings: list[Finding] = []
    system = guest.pick(hardware, options.guest, environment.guests.keys(), environment.version)
    family = guest.family_of(hardware, options.guest)
    findings += _guest(system, hardware, options, environment)
    buses = {disk.number: _bus(disk, wanted, family, findings) for disk in disks}
    slots, doubts = slots_of(buses, environment.version)
    findings += [*doubts, *_disks(disks, buses, environment.version)]
    cards, doubts = cards_of(wanted.networks, family)
    findings += doubts
    cores = options.cores or _cores(hardware.cpus)
    if hardware.cpus % cores:
        message = f"{hardware.cpus} CPUs are no whole number of sockets with {cores} cores"
        findings.append(Finding("error", "cpus", message, "correct `cores` in the options, or `cpus:` in the mapping"))
    memory = -(-hardware.memory_bytes // MEMORY_STEP) * MEMORY_STEP
    if memory != hardware.memory_bytes:
        message = f"vSphere gives memory in steps of 4 MiB: {memory >> 20} MiB"
        findings.append(Finding("note", "memory", message))
    findings += _firmware(hardware, options, system, environment)
    findings += _limits(hardware, system, environment)
    return Choice(
        firmware="efi" if hardware.firmware == "uefi" else "bios",
        secure_boot=hardware.secure_boot,
        version=environment.version,
        guest=system,
        cpus=hardware.cpus,
        cores=cores if hardware.cpus % cores == 0 else 1,
        memory=memory,
        slots=slots,
        cards=cards,
        smbios=smbios_uuid(hardware) if options.uuid == "keep" else None,
        findings=tuple(findings),
    )


def rounded(size: int) -> int:
    """Bytes of the virtual disk for a disk of this size."""
    return max(-(-size // SIZE_STEP) * SIZE_STEP, SIZE_STEP)


def smbios_uuid(hardware: Machine) -> uuid.UUID | None:
    """What `config.uuid` must be so that the guest reads the UUID that it had; None: it was not recorded.

    vSphere writes the 16 bytes of the table in their order. Guests show the first three fields in little-endian order
    (SMBIOS 2.6, section 7.2.1). The serial number that vSphere gives its machines has the bytes as they are.
    """
    recorded = hardware.raw.get("dmi")
    if not isinstance(recorded, dict):
        return None
    if found := _VMWARE_SERIAL.match(str(recorded.get("product_serial", "")).strip()):
        return uuid.UUID(hex=re.sub("[ -]", "", found[1]))
    try:
        shown = uuid.UUID(str(recorded.get("product_uuid", "")))
    except ValueError:
        return None
    return uuid.UUID(bytes=shown.bytes_le) if shown.int not in (0, (1 << 128) - 1) else None


def _bus(disk: Disk, wanted: Wanted, family: guest.Family, findings: list[Finding]) -> Bus:
    subject = f"disk {disk.number}"
    target = wanted.disks.get(disk.number)
    if target is not None and target.bus is not None:
        if target.bus in _BUSES:
            return _BUSES[target.bus]
        message = f"vSphere has no {target.bus} controller"
        findings.append(Finding("error", subject, message, "use pvscsi, lsisas, sata, nvme or ide in the mapping"))
        return "pvscsi"
    if (named := _BUSES.get(disk.bus.lower())) is not None:
        return named
    if disk.bus.startswith("nvme") or (wanted.hardware.platform == "aws" and not disk.bus):
        bus: Bus = "nvme"
    else:
        bus = "lsisas" if family == "windows" else "pvscsi"
    was = f"its bus at the source ({disk.bus}) is none that vSphere has" if disk.bus else "its bus was not recorded"
    driver = {"nvme": "nvme", "lsisas": "lsi_sas", "pvscsi": "vmw_pvscsi"}[bus]
    findings.append(
        Finding(
            "warning" if disk.boot or disk.number == 0 else "note",
            subject,
            f"{was}; it gets {bus}, for which the guest needs the driver {driver} when it boots",
            "see that its initramfs (Windows: its boot-start drivers) has it, or name a bus it has one for with `bus:` "
            "in the mapping",
        )
    )
    return bus


def _disks(disks: Sequence[Disk], buses: dict[int, Bus], version: int) -> list[Finding]:
    found = []
    for disk in disks:
        subject = f"disk {disk.number}"
        if disk.sector_size != 512:
            message = f"it has sectors of {disk.sector_size} bytes; virtual disks of vSphere have 512"
            found.append(Finding("error", subject, message, "bring it back with --to files, or copy its files"))
        if disk.size > MOST_DISK:
            message = f"it has {disk.size >> 40} TiB; a virtual disk has 62 at most"
            found.append(Finding("error", subject, message, "bring it back with --to files"))
        elif rounded(disk.size) != disk.size:
            found.append(Finding("note", subject, f"it becomes {rounded(disk.size) - disk.size} bytes larger there"))
        if buses[disk.number] == "nvme" and version and version < NVME_VERSION:
            message = f"NVMe needs hardware version {NVME_VERSION}, and the hosts make {version}"
            found.append(Finding("error", subject, message, "use another `bus:` in the mapping"))
    return found


def _guest(system: str, hardware: Machine, options: VmwareOptions, environment: Environment) -> list[Finding]:
    if options.guest and environment.guests and options.guest not in environment.guests:
        message = f"the hosts do not know the guest id {options.guest!r}; {system} is taken"
        close = sorted(g for g in environment.guests if g[:6].lower() == options.guest[:6].lower())
        known = f"they know {', '.join(close)}" if close else "leave `guest` out of the options"
        return [Finding("warning", "guest", message, known)]
    if system == guest.LAST and not options.guest:
        message = "nothing tells which system it has: vSphere will call it an unknown one of 64 bits"
        return [Finding("note", "guest", message, "name it with `guest` in the options")]
    best = guest.candidates(hardware, options.guest)[0]
    if system != best:
        return [Finding("note", "guest", f"vSphere will call its system {system}: the hosts do not know {best}")]
    return []


def _firmware(hardware: Machine, options: VmwareOptions, system: str, environment: Environment) -> list[Finding]:
    found = []
    if hardware.firmware == "uefi" and options.nvram == "fallback":
        found.append(
            Finding(
                "warning",
                "firmware",
                "a new machine with UEFI has no boot entries: it starts only EFI/BOOT/BOOTX64.EFI of its system "
                "partition",
                "see that the loader lies there (grub-install --removable, bcdboot), and say `nvram: fresh` in the "
                "options when it does",
            )
        )
    if hardware.secure_boot and environment.version and environment.version < SECURE_BOOT_VERSION:
        message = f"secure boot needs hardware version {SECURE_BOOT_VERSION}, and the hosts make {environment.version}"
        remedy = "name newer hosts or a higher `version`, or say `firmware: bios` if its disk can start so"
        found.append(Finding("error", "firmware", message, remedy))
    known = environment.guests.get(system)
    if known is not None and hardware.secure_boot and not known.secure_boot:
        message = f"vSphere does not offer secure boot for {system}"
        found.append(Finding("warning", "firmware", message, "name the system with `guest` in the options"))
    if (
        known is not None
        and known.firmware
        and ("efi" if hardware.firmware == "uefi" else "bios") not in known.firmware
    ):
        message = f"vSphere does not offer {hardware.firmware} for {system}"
        found.append(Finding("warning", "firmware", message, "name the system with `guest` in the options"))
    if hardware.raw.get("tpm"):
        message = "it had a TPM, whose contents cannot come along; the machine is made without one"
        remedy = (
            "disks that are sealed to it (BitLocker, LUKS) need their recovery key: have it at hand, or unseal them"
        )
        found.append(Finding("warning", "TPM", message, remedy))
    return found


def _limits(hardware: Machine, system: str, environment: Environment) -> list[Finding]:
    known = environment.guests.get(system)
    cpus = min(filter(None, (environment.most_cpus, known.most_cpus if known else 0)), default=0)
    memory = min(filter(None, (environment.most_memory, known.most_memory if known else 0)), default=0)
    found = []
    if cpus and hardware.cpus > cpus:
        message = f"{hardware.cpus} CPUs are wanted; {system} has {cpus} at most here"
        found.append(Finding("error", "cpus", message, "lower `cpus:` in the mapping"))
    if memory and hardware.memory_bytes > memory:
        message = f"{hardware.memory_bytes >> 20} MiB are wanted; {system} has {memory >> 20} at most here"
        found.append(Finding("error", "memory", message, "lower `memory:` in the mapping"))
    return found


def _cores(cpus: int) -> int:
    """The largest number of cores up to `MOST_CORES` that divides the CPUs."""
    return next(cores for cores in range(min(cpus, MOST_CORES), 0, -1) if cpus % cores == 0)
