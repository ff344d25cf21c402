"""start.sh and README.txt: the machine's folder as a person meets it."""

from __future__ import annotations

import shlex

from importers.qemu.arguments import (
    AGENT_SOCKET,
    QMP_SOCKET,
    SERIAL_LOG,
    SERIAL_SOCKET,
    VNC_SOCKET,
    Option,
    arguments,
    forwarding,
)
from importers.qemu.definition import Definition
from importers.qemu.events import COMMANDS_FILE, EVENTS_FILE

START = "start.sh"
README = "README.txt"


def start_script(machine: Definition) -> str:
    """What switches the machine on, for a person and for failback alike. Its process takes the script's place."""
    lines = [
        "#!/bin/sh",
        f"# Starts {shlex.quote(machine.name)} ({machine.purpose}). It keeps the terminal until the machine is off;",
        f"# its console is in {SERIAL_LOG}, events are in {EVENTS_FILE}. failback writes this file anew.",
        'cd "$(dirname "$0")" || exit 1',
        " \\\n    ".join([f"exec {shlex.quote(machine.binary)}", *map(_shown, arguments(machine))])
        + f" \\\n    <{COMMANDS_FILE} >>{EVENTS_FILE}",
    ]
    return "\n".join(lines) + "\n"


def _shown(option: Option) -> str:
    return " ".join(map(shlex.quote, option))


def readme(machine: Definition) -> str:
    """What is what, in words."""
    firmware = "BIOS (SeaBIOS)" if machine.flash is None else "UEFI (OVMF)"
    if machine.flash is not None and machine.flash.secure:
        firmware += " with secure boot"
    lines = [
        f"{machine.name}: {machine.machine}, brought here for {machine.purpose} by failback",
        "",
        f"  {machine.cpus} CPU(s), {machine.memory_bytes >> 20} MiB of memory, {firmware}, board {machine.type}",
        f"  accelerator {machine.accelerator}: {machine.why}",
        *(
            f"  disk {disk.number}: {disk.size} bytes on {disk.bus}, {disk.node.file}"
            + (f" over {disk.base.file}" if disk.node != disk.base else "")
            + (", boots first" if disk.boot else "")
            for disk in machine.disks
        ),
        *(
            f"  adapter {number}: {card.model} {card.mac}, {_network(machine, number)}"
            for number, card in enumerate(machine.cards)
        ),
        "",
        "Start it by hand:        ./start.sh",
        f"Its serial console:      socat -,rawer UNIX-CONNECT:{SERIAL_SOCKET}   (so far: {SERIAL_LOG})",
        f"Its monitor:             socat - UNIX-CONNECT:{QMP_SOCKET}   (QMP)",
        f"Its guest agent:         {AGENT_SOCKET}",
    ]
    if machine.display == "vnc":
        lines.append(f"Its screen:              a VNC viewer at the socket {VNC_SOCKET}")
    if any(disk.node != disk.base for disk in machine.disks):
        lines += [
            "",
            "What it writes goes to the overlays in this folder. The disks below them must not be written meanwhile:",
            "an overlay fits the disk it was made on and no other content.",
        ]
    return "\n".join(lines) + "\n"


def _network(machine: Definition, number: int) -> str:
    card = machine.cards[number]
    if card.bridge:
        return f"bridge {card.bridge}"
    reach = "reaches the outside through this host" if card.open else "isolated"
    if number == forwarding(machine) and machine.forwards:
        ports = ", ".join(f"127.0.0.1:{here} -> {there}" for here, there in sorted(machine.forwards.items()))
        reach += f"; forwarded: {ports}"
    return reach
