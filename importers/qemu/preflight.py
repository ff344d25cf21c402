"""What can be known before a machine is brought to this host."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

from importers.qemu import host
from importers.qemu.accelerator import Accelerator
from importers.qemu.definition import Definition, load
from importers.qemu.firmware import find_flash
from importers.qemu.folder import PURPOSES, all_folders
from importers.qemu.forward import taken
from importers.qemu.hardware import Choice, StagedDisk, choose_hardware
from importers.qemu.options import QemuOptions
from importers.qemu.process import runs
from importers.qemu.programs import INSTALL, INSTALL_OVMF, LEAST_VERSION, find_program, version_of
from manifests.manifest import Manifest
from pipeline.errors import FailbackError
from pipeline.finding import Finding
from pipeline.mapping import DiskTarget
from pipeline.target import Context, Intent
from pipeline.wanted import Wanted

FORMATS = ("", "raw", "qcow2")
_OVERLAY_SHARE = 10
"""A tenth of the data is what a machine may well write while it is tried out."""
_ANY = uuid.UUID(int=0)


def programs(binary: str) -> Iterator[Finding]:
    """What is missing of QEMU itself."""
    for name in (binary, "qemu-img"):
        try:
            path = find_program(name)
        except FailbackError as error:
            yield Finding("error", "QEMU", error.message, error.remedy)
            continue
        version = version_of(path) if name == binary else LEAST_VERSION
        if version and version < LEAST_VERSION:
            shown, least = (".".join(map(str, v)) for v in (version, LEAST_VERSION))
            yield Finding("error", "QEMU", f"{name} is version {shown}; {least} is needed", f"`{INSTALL}`")


def firmware() -> Iterator[Finding]:
    """Whether machines with UEFI can be had."""
    if find_flash("q35", secure=False) is None:
        message = "UEFI firmware for QEMU (OVMF) is not installed: only machines with BIOS can come here"
        yield Finding("warning", "firmware", message, f"`{INSTALL_OVMF}`")


def machine(manifest: Manifest, wanted: Wanted, intent: Intent, options: QemuOptions, root: Path) -> Iterator[Finding]:
    """What is wrong or doubtful with this machine on this host. Accelerator and programs apart."""
    choice = choose_hardware(list(map(StagedDisk.of, manifest.disks)), wanted, wanted.networks, options, _ANY)
    yield from choice.findings
    yield from _firmware(wanted, choice)
    for number, target in wanted.disks.items():
        yield from _disk(number, target)
    if wanted.folder:
        yield Finding("note", "folder", f"QEMU has no folders: {wanted.folder} is not used")
    yield from _space(manifest, root)
    if intent.boots:
        yield from _memory(wanted.hardware.memory_bytes)
        if wanted.hardware.cpus > host.cpus():
            message = f"{wanted.hardware.cpus} CPUs are wanted, this host has {host.cpus()}"
            yield Finding("warning", "cpus", message, "it will be slow; lower `cpus:` in the mapping")
    yield from _networks(choice)
    yield from _neighbours(wanted, manifest.machine.name, intent, options, root)


def accelerator(found: Accelerator, options: QemuOptions) -> Iterator[Finding]:
    """Whether it is the one that was wished for."""
    if options.accelerator == "kvm" and found.kind != "kvm":
        remedy = "mend that, or allow `accelerator: auto` in the mapping's options, which interprets (slow)"
        yield Finding("error", "KVM", f"KVM does not work: {found.why}", remedy)
    elif options.accelerator == "auto" and found.kind == "tcg":
        message = f"not used ({found.why}): the machine is interpreted, some ten times slower"
        yield Finding("note", "KVM", message)


def instant(wanted: Wanted, context: Context) -> Iterator[Finding]:
    """Why the machine cannot start before its disks are here."""
    if not context.again:
        message = "the program that asks for it cannot be called again to serve the disks"
        yield Finding("error", "instant", message, "use the command `failback`")
    for number, target in wanted.disks.items():
        if target.format not in ("", "raw"):
            message = f"a {target.format} disk cannot be filled while it is used"
            yield Finding("error", f"disk {number}", message, "leave `format:` out, or leave --instant out")


def _firmware(wanted: Wanted, choice: Choice) -> Iterator[Finding]:
    if wanted.hardware.firmware != "uefi":
        return
    secure = wanted.hardware.secure_boot
    if secure and find_flash(choice.board, secure=True) is not None:
        return
    if find_flash(choice.board, secure=False) is None:
        yield Finding("error", "firmware", "UEFI firmware for QEMU (OVMF) is not installed", f"`{INSTALL_OVMF}`")
    elif secure:
        yield Finding(
            "warning",
            "firmware",
            "there is no UEFI firmware with secure boot here; the machine boots without it",
            f"`{INSTALL_OVMF}` brings it on Debian and Ubuntu",
        )


def _disk(number: int, target: DiskTarget) -> Iterator[Finding]:
    subject = f"disk {number}"
    if target.device:
        remedy = "leave `device:` out, or restore to it with --to files"
        yield Finding("error", subject, f"a machine of QEMU does not use {target.device} of this host", remedy)
    if target.format not in FORMATS:
        yield Finding("error", subject, f"{target.format} is no format for a stage of QEMU", "use raw or qcow2")
    if target.storage:
        message = f"QEMU has no storages: {target.storage} is not used"
        yield Finding("note", subject, message, "name a folder with --out")


def _space(manifest: Manifest, root: Path) -> Iterator[Finding]:
    there = sum(
        path.stat().st_blocks * 512 for path in root.glob(f"{manifest.machine.name}-*/stage/disk*") if path.is_file()
    )
    needed = max(sum(disk.data_bytes for disk in manifest.disks) - there, 0)
    free = host.free_bytes(root)
    remedy = f"make room, or name a folder on a larger file system with --out ({free >> 20} MiB are free)"
    if free < needed:
        message = f"the disks take {needed >> 20} MiB, more than is free in {root}"
        yield Finding("error", "space", message, remedy)
    elif free < needed + needed // _OVERLAY_SHARE:
        message = f"the disks take {needed >> 20} MiB; little room is left in {root} for what the machine writes"
        yield Finding("warning", "space", message, remedy)


def _memory(wanted: int) -> Iterator[Finding]:
    everything, available = host.memory_bytes()
    remedy = "lower `memory:` in the mapping, or free some here"
    if wanted > everything:
        message = f"{wanted >> 20} MiB are wanted, this host has {everything >> 20} MiB"
        yield Finding("error", "memory", message, remedy)
    elif wanted > available:
        message = f"{wanted >> 20} MiB are wanted, {available >> 20} MiB are available now"
        yield Finding("warning", "memory", message, remedy)


def _networks(choice: Choice) -> Iterator[Finding]:
    wanted = dict.fromkeys(card.bridge for card in choice.cards if card.bridge)
    for name in wanted:
        if not host.is_bridge(name):
            has = f"it has {', '.join(host.bridges())}" if host.bridges() else "it has none"
            remedy = f"create it (`ip link add {name} type bridge`), or name another: {has}"
            yield Finding("error", f"network bridge:{name}", f"this host has no bridge {name}", remedy)
    if wanted and (missing := host.bridge_helper()):
        yield Finding("error", "networks", missing, "mend that, or use `user` networks in the mapping")


def _neighbours(wanted: Wanted, machine: str, intent: Intent, options: QemuOptions, root: Path) -> Iterator[Finding]:
    mine = False
    for other in _machines(root):
        if other.machine == machine:
            mine = True
        elif other.name == wanted.name:
            message = f"{other.machine} is called {wanted.name} here already"
            yield Finding("warning", "name", message, "give one of them another `name:` in the mapping")
    if intent.purpose == "rehearsal" or not intent.boots or (mine and _runs(root, machine)):
        return
    for port in sorted(options.forwards):
        if taken(port):
            message = f"port {port} of this host is already in use"
            yield Finding("error", f"port {port}", message, "choose another in the options' `forwards`")


def _machines(root: Path) -> Iterator[Definition]:
    for folder in all_folders(root):
        for purpose in PURPOSES:
            try:
                found = load(folder.machine(purpose))
            except ValueError:
                continue  # the commands for that machine will say so
            if found is not None:
                yield found


def _runs(root: Path, machine: str) -> bool:
    return any(
        runs(folder.machine("production"), folder.marker)
        for folder in all_folders(root)
        if folder.path.name == f"{machine}-{folder.marker}" and folder.machine("production").is_dir()
    )
