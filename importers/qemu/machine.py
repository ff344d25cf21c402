"""The machine in its folder, `build-rehearsal` or `build-production`.

machine.json         its definition; written last, so a folder with it is whole
start.sh README.txt  for people, and what `boot` runs
disk0.qcow2 ...      overlays: what the guest wrote
nvram.fd             variables of UEFI firmware
events.in events.log serial.log qemu.log *.sock pid running    while it runs and after
"""

from __future__ import annotations

import shutil
from pathlib import Path

from importers.qemu.definition import FILE, Definition, Node, load
from importers.qemu.durable import sync_file, sync_folder, write_whole
from importers.qemu.events import COMMANDS, COMMANDS_FILE, EVENTS_FILE
from importers.qemu.folder import complete_discard, delete, discard, going
from importers.qemu.programs import qemu_img
from importers.qemu.script import README, START, readme, start_script
from pipeline.errors import TargetError


def make(folder: Path, machine: Definition) -> None:
    """The machine with fresh overlays, whole or not there. Raises TargetFull, TargetError."""
    half = half_made(folder)
    delete(half)
    half.mkdir(mode=0o700)
    write_whole(half / FILE, machine.model_dump_json(indent=1))
    for disk in machine.disks:
        if disk.node != disk.base:
            make_overlay(half, disk.node, disk.base, disk.size)
    if machine.flash is not None:
        try:
            shutil.copyfile(machine.flash.template, half / machine.flash.variables)
        except OSError as error:
            raise TargetError(
                f"the firmware's variables cannot be copied from {machine.flash.template}: {error.strerror}",
                remedy="reinstall the firmware package (ovmf), or make room",
            ) from error
        (half / machine.flash.variables).chmod(0o600)
    describe(half, machine)
    sync_folder(half)
    half.rename(folder)
    sync_folder(folder.parent)


def half_made(folder: Path) -> Path:
    """Where a machine is while it is being made; its definition first, so that it can be told whose it is."""
    return folder.with_name(folder.name + ".new")


def make_overlay(folder: Path, overlay: Node, base: Node, size: int) -> None:
    """An empty layer over `base`. QEMU's raw disks are whole sectors: the last one is filled up with zeros."""
    sectors = -(-size // 512) * 512
    qemu_img(
        "create",
        "-q",
        "-f",
        overlay.format,
        "-b",
        base.file,
        "-F",
        base.format,
        overlay.file,
        str(sectors),
        folder=folder,
    )
    sync_file(folder / overlay.file)


def describe(folder: Path, machine: Definition) -> None:
    """Write the definition and what follows from it."""
    write_whole(folder / COMMANDS_FILE, COMMANDS)
    write_whole(folder / START, start_script(machine), mode=0o700)
    write_whole(folder / README, readme(machine))
    write_whole(folder / FILE, machine.model_dump_json(indent=1))


def merged(folder: Path, machine: Definition) -> Definition:
    """Put what every overlay holds into the disk below, and let the machine use that. May be cut short and repeated:
    an overlay is left alone until nothing needs it."""
    for disk in machine.disks:
        if disk.node != disk.base:
            qemu_img("commit", "-q", "-d", "-f", disk.node.format, disk.node.file, folder=folder)
            sync_file(folder / disk.base.file)
    disks = tuple(disk.model_copy(update={"node": disk.base}) for disk in machine.disks)
    return machine.model_copy(update={"disks": disks})


def drop_overlays(folder: Path, machine: Definition) -> None:
    """Those that no disk of the machine uses."""
    used = {disk.node.file for disk in machine.disks}
    for overlay in folder.glob("disk*.qcow2"):
        if overlay.name not in used:
            overlay.unlink()


def definition_in(folder: Path) -> Definition | None:
    """Of the machine in the folder, whole, half made or half dropped. Raises ValueError when it is damaged."""
    return load(folder) or load(going(folder)) or load(half_made(folder))


def drop(folder: Path) -> None:
    """The machine and all it wrote are gone."""
    discard(folder, last=FILE)
    delete(half_made(folder))


def drop_rest(folder: Path) -> None:
    """What a drop, or the making of a machine, left half done is gone."""
    complete_discard(folder, last=FILE)
    delete(half_made(folder))


def started(folder: Path) -> bool:
    """Whether it was ever switched on: its layer may hold what the guest wrote."""
    return (folder / EVENTS_FILE).exists()
