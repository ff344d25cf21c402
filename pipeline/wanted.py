"""What one machine is to be on the target: a recovery point seen through the mapping."""

from __future__ import annotations

from collections.abc import Mapping as Dictionary
from dataclasses import dataclass, field, replace
from typing import Any

from manifests.machine import Machine, Model, Nic
from manifests.manifest import Manifest
from pipeline.finding import Finding
from pipeline.mapping import EVERY_OTHER, DiskTarget, MachineMapping, Mapping, NetworkTarget

LEAST_MEMORY = {"bios": 64 << 20, "uefi": 384 << 20}
"""Bytes below which no operating system of today starts. UEFI: what GRUB on OVMF needs to load a Debian kernel."""
SMALL_SHARE = 0.5
"""Of the memory at the source; with less, services that were sized for it may not start."""


class Network(Model):
    """One adapter of the machine as it is to be. `name` None: isolated, nothing outside can be reached."""

    name: str | None = None
    mac: str = ""
    """Empty: the target chooses."""
    model: str = ""
    addresses: tuple[str, ...] = ()
    """What it had at the source, with prefix length."""
    source: str = ""
    """Its network at the source."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an importer builds. `findings` are what the mapping itself shows to be wrong or doubtful."""

    name: str
    """Of the machine on the platform."""
    hardware: Machine
    """With the mapping's CPUs, memory and firmware; its `name` is the machine's at the source."""
    networks: tuple[Network, ...] = ()
    """One for each adapter that the machine shall have, in the source's order."""
    disks: Dictionary[int, DiskTarget] = field(default_factory=dict)
    """By number; every disk of the point has an entry."""
    folder: str = ""
    options: Dictionary[str, Any] = field(default_factory=dict)
    """What the mapping says for this platform alone; validated by its importer."""
    findings: tuple[Finding, ...] = ()

    def rehearsal(self) -> Wanted:
        """The same machine to be tried out: cut off from every network, under a name of its own. What is wrong with
        its networks stops nobody then, and that they are isolated is no news."""
        apart = tuple(n.model_copy(update={"name": None}) for n in self.networks)
        found = [f for f in self.findings if f.severity == "error" or not f.subject.startswith("network ")]
        known = [replace(f, severity="warning") if f.subject.startswith("network ") else f for f in found]
        return replace(self, name=f"{self.name}-rehearsal", networks=apart, findings=tuple(known))


def resolve(mapping: Mapping, manifest: Manifest, platform: str) -> Wanted:
    """Apply `mapping` to a recovery point, for the platform of that name (its options, no more)."""
    machine, own = manifest.machine, mapping.of(manifest.machine.name)
    firmware = own.firmware or machine.firmware
    hardware = machine.model_copy(
        update={
            "cpus": own.cpus or machine.cpus,
            "memory_bytes": own.memory or machine.memory_bytes,
            "firmware": firmware,
            "secure_boot": machine.secure_boot and firmware == "uefi",
        }
    )
    networks, findings = _networks(machine, own)
    findings += _memory(machine, hardware) + _firmware(machine, hardware)
    numbers = {disk.number for disk in manifest.disks}
    for number in sorted(own.disks.keys() - numbers):
        findings.append(
            Finding(
                "error",
                f"disk {number}",
                f"the mapping names disk {number}, which {manifest.label} does not have",
                f"it has {len(numbers)} disk(s): {', '.join(map(str, sorted(numbers)))}",
            )
        )
    return Wanted(
        name=(own.name or "{name}").format(name=machine.name),
        hardware=hardware,
        networks=networks,
        disks={number: _disk(own, number) for number in sorted(numbers)},
        folder=own.folder or "",
        options=own.options.get(platform, {}),
        findings=tuple(findings),
    )


def _disk(own: MachineMapping, number: int) -> DiskTarget:
    said = own.disks.get(number, DiskTarget())
    return said.model_copy(
        update={"storage": said.storage or own.storage or "", "format": said.format or own.format or ""}
    )


def _networks(machine: Machine, own: MachineMapping) -> tuple[tuple[Network, ...], list[Finding]]:
    networks: list[Network] = []
    findings: list[Finding] = []
    known = {nic.network for nic in machine.nics}
    if own.networks and not machine.nics:
        message = f"the mapping has networks, and no adapter of {machine.name} was recorded: it will have none"
        return (), [Finding("warning", "networks", message, "export it with --nic network=NAME, once for each")]
    for name in own.networks.keys() - known - {EVERY_OTHER}:
        has = ", ".join(sorted(map(repr, known)))
        findings.append(
            Finding(
                "warning",
                f"network {name}",
                f"the mapping names the network {name!r}, which {machine.name} has no adapter in",
                f"check the spelling; it has {has}",
            )
        )
    for number, nic in enumerate(machine.nics):
        target, finding = _target(nic, number, own)
        if finding:
            findings.append(finding)
        if target is not None:
            networks.append(_network(nic, target, own))
    return tuple(networks), sorted(findings, key=lambda f: f.subject)


def _target(nic: Nic, number: int, own: MachineMapping) -> tuple[NetworkTarget | None, Finding | None]:
    """Where an adapter goes; None: nowhere, there shall be none."""
    shown = f"adapter {number} (network {nic.network!r})" if nic.network else f"adapter {number}"
    for key in (nic.network, EVERY_OTHER):
        if key in own.networks:
            target = own.networks[key]
            if target is not None and target.name is None and not target.isolated:
                return NetworkTarget(isolated=True, model=target.model), Finding(
                    "error",
                    f"network {key}",
                    f"the mapping for {key!r} names no network",
                    "write `name: NETWORK`, or `isolated: true`",
                )
            return target, None
    if own.networks:
        return NetworkTarget(isolated=True), Finding(
            "error",
            f"network {nic.network}",
            f"{shown} is not in the mapping",
            f'add it to `networks`, or say what all others get: "{EVERY_OTHER}": {{isolated: true}}',
        )
    return NetworkTarget(isolated=True), Finding(
        "warning",
        f"network {nic.network}",
        f"{shown} is not mapped: it will be isolated",
        "say in the mapping's `networks` where it goes",
    )


def _network(nic: Nic, target: NetworkTarget, own: MachineMapping) -> Network:
    return Network(
        name=None if target.isolated else target.name,
        mac="" if own.mac == "new" else nic.mac,
        model=target.model or nic.model,
        addresses=nic.addresses,
        source=nic.network,
    )


def _memory(machine: Machine, hardware: Machine) -> list[Finding]:
    least = LEAST_MEMORY[hardware.firmware]
    if hardware.memory_bytes < min(least, machine.memory_bytes):
        return [
            Finding(
                "error",
                "memory",
                f"{hardware.memory_bytes >> 20} MiB of memory are too little for {machine.name} to boot",
                f"give it at least {least >> 20} MiB with `memory:` in the mapping; "
                f"it had {machine.memory_bytes >> 20} MiB",
            )
        ]
    if hardware.memory_bytes < machine.memory_bytes * SMALL_SHARE:
        return [
            Finding(
                "warning",
                "memory",
                f"{machine.name} gets {hardware.memory_bytes >> 20} MiB of memory; "
                f"at the source it had {machine.memory_bytes >> 20} MiB",
                "services that were sized for more may not start; raise `memory:` in the mapping",
            )
        ]
    return []


def _firmware(machine: Machine, hardware: Machine) -> list[Finding]:
    if hardware.firmware == machine.firmware:
        return []
    return [
        Finding(
            "warning",
            "firmware",
            f"{machine.name} booted with {machine.firmware} and is to boot with {hardware.firmware}",
            "it boots only if its disk holds a loader for both; leave `firmware:` out of the mapping to keep it",
        )
    ]
