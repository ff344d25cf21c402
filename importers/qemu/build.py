"""From what is wanted to a definition."""

from __future__ import annotations

from importers.qemu.accelerator import Accelerator
from importers.qemu.definition import Definition, DiskDefinition, FlashDefinition, Node
from importers.qemu.firmware import find_flash
from importers.qemu.folder import Record
from importers.qemu.hardware import Choice, choose_hardware
from importers.qemu.options import BINARY, parse_options
from importers.qemu.programs import INSTALL_OVMF, find_program
from pipeline.errors import TargetError
from pipeline.place import Purpose
from pipeline.wanted import Wanted


def define(record: Record, wanted: Wanted, purpose: Purpose, accelerator: Accelerator) -> Definition:
    """Raises TargetError for what cannot be had: `preflight` says all of it beforehand."""
    options = parse_options(wanted.options)
    choice = choose_hardware(record.disks, wanted, wanted.networks, options, record.marker)
    for finding in choice.findings:
        # Networks may be other ones when it is switched on; until then what is not there is isolated.
        if finding.severity == "error" and not finding.subject.startswith("network"):
            raise TargetError(f"{finding.subject}: {finding.message}", remedy=finding.remedy)
    hardware = wanted.hardware
    return Definition(
        marker=record.marker,
        machine=record.machine,
        name=wanted.name,
        purpose=purpose,
        binary=find_program(BINARY),
        type=choice.board,
        cpus=hardware.cpus,
        memory_bytes=hardware.memory_bytes,
        flash=_flash(wanted, choice),
        disks=_disks(record, choice),
        networks=wanted.networks,
        cards=choice.cards,
        wish=options.accelerator,
        accelerator=accelerator.kind,
        why=accelerator.why,
        cpu=options.cpu,
        display=options.display,
        # A rehearsal may run beside the machine for production.
        forwards=options.forwards if purpose == "production" else {},
        extra=options.extra,
    )


def _disks(record: Record, choice: Choice) -> tuple[DiskDefinition, ...]:
    boots = any(disk.boot for disk in record.disks)
    return tuple(
        DiskDefinition(
            number=disk.number,
            bus=choice.buses[disk.number],
            node=Node(file=f"disk{disk.number}.qcow2", format="qcow2"),
            base=_base(record, disk.number),
            size=disk.size,
            serial=disk.serial,
            sector_size=disk.sector_size,
            boot=disk.boot or (not boots and disk == record.disks[0]),
        )
        for disk in record.disks
    )


def _base(record: Record, number: int) -> Node:
    """As seen from the machine's folder."""
    adopted = record.adopted.get(number)
    if adopted is not None:
        return adopted
    node = record.nodes[number]
    return node.model_copy(update={"file": f"../{node.file}"})


def _flash(wanted: Wanted, choice: Choice) -> FlashDefinition | None:
    if wanted.hardware.firmware != "uefi":
        return None
    found = find_flash(choice.board, secure=True) if wanted.hardware.secure_boot else None
    found = found or find_flash(choice.board, secure=False)
    if found is None:
        raise TargetError("UEFI firmware for QEMU (OVMF) is not installed", remedy=f"`{INSTALL_OVMF}`")
    return FlashDefinition(
        code=str(found.code),
        code_format=found.code_format,
        template=str(found.template),
        variables_format=found.template_format,
        secure=found.secure,
    )
