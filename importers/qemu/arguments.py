"""QEMU's command line for a machine, option by option (qemu-system-x86_64(1)).

It begins with -nodefaults and says everything, so that no release of QEMU and no file in /etc adds to it. Sockets and
files have no folder: the process works in the machine's folder, which keeps them below the 108 bytes that the name of
a Unix socket may have.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Interface

from importers.qemu.buses import attach
from importers.qemu.definition import CardDefinition, Definition, FlashDefinition, Node

QMP_SOCKET = "qmp.sock"
AGENT_SOCKET = "agent.sock"
SERIAL_SOCKET = "serial.sock"
SERIAL_LOG = "serial.log"
VNC_SOCKET = "vnc.sock"
PID_FILE = "pid"
RECONNECT_SECONDS = 60
"""How long QEMU holds a guest's requests back when the server of a disk is gone."""

_CARDS = {
    "virtio": "virtio-net-pci",
    "e1000": "e1000",
    "e1000e": "e1000e",
    "vmxnet3": "vmxnet3",
    "rtl8139": "rtl8139",
}

Option = tuple[str, ...]
"""`-name value`, or `-name` alone."""


def arguments(definition: Definition) -> list[Option]:
    """All options, in an order that a person can follow."""
    return [option for part in _PARTS for option in part(definition)]


def quoted(value: str) -> str:
    """A value inside a comma-separated option."""
    return value.replace(",", ",,")


def _identity(machine: Definition) -> Iterator[Option]:
    yield "-name", f"guest={quoted(machine.name)}"
    yield "-uuid", str(machine.marker)
    yield "-nodefaults", "-no-user-config"
    yield "-pidfile", PID_FILE


def _board(machine: Definition) -> Iterator[Option]:
    flash = machine.flash
    board: str = machine.type
    if flash is not None:
        board += ",pflash0=code,pflash1=variables"
        board += ",smm=on" if flash.secure else ""
    yield "-machine", board
    yield "-accel", "kvm" if machine.accelerator == "kvm" else "tcg,thread=multi"
    yield "-cpu", machine.cpu or ("host" if machine.accelerator == "kvm" else "max")
    yield "-smp", f"cpus={machine.cpus},sockets=1,cores={machine.cpus},threads=1"
    yield "-m", f"size={-(-machine.memory_bytes // (1 << 20))}M"
    yield "-rtc", "base=utc"
    if flash is not None:
        yield from _flash(flash)
    # Without strict, firmware that finds no disk tries the network for minutes.
    yield "-boot", "strict=on"


def _flash(flash: FlashDefinition) -> Iterator[Option]:
    if flash.secure:
        yield "-global", "driver=cfi.pflash01,property=secure,value=on"
    yield "-blockdev", f"{_node('code', Node(file=flash.code, format=flash.code_format))},read-only=on"
    yield "-blockdev", _node("variables", Node(file=flash.variables, format=flash.variables_format))


def _node(name: str, node: Node) -> str:
    if node.format == "nbd":
        server = f"server.type=unix,server.path={quoted(node.file)},export={name}"
        return f"driver=nbd,node-name={name},{server},reconnect-delay={RECONNECT_SECONDS}"
    return f"driver={node.format},node-name={name},file.driver=file,file.filename={quoted(node.file)}"


def _disks(machine: Definition) -> Iterator[Option]:
    for disk in machine.disks:
        file = ",file.discard=unmap" if disk.node.format != "nbd" else ""
        yield "-blockdev", f"{_node(f'disk{disk.number}', disk.node)},discard=unmap{file}"
    yield from (("-device", device) for device in attach(machine))


def _networks(machine: Definition) -> Iterator[Option]:
    for number, card in enumerate(machine.cards):
        forwards = machine.forwards if number == forwarding(machine) else {}
        yield "-netdev", _netdev(number, card, forwards)
        # Without a boot ROM: strict boot order would not use it, and reading it takes time.
        yield "-device", f"{_CARDS[card.model]},netdev=net{number},mac={card.mac},romfile="


def forwarding(machine: Definition) -> int:
    """Number of the card that ports are forwarded to; -1: there is none in user mode."""
    return next((number for number, card in enumerate(machine.cards) if not card.bridge), -1)


def _netdev(number: int, card: CardDefinition, forwards: dict[int, int]) -> str:
    if card.bridge:
        return f"bridge,id=net{number},br={quoted(card.bridge)}"
    user = f"user,id=net{number},restrict={'off' if card.open else 'on'}"
    if card.address:
        user += f",{subnet_of(card.address)}"
    return user + "".join(
        f",hostfwd=tcp:127.0.0.1:{here}-{guest_address(card)}:{there}" for here, there in sorted(forwards.items())
    )


def guest_address(card: CardDefinition) -> str:
    """The guest's IPv4 address in user mode; empty: the first that QEMU's DHCP gives."""
    return card.address.partition("/")[0]


def subnet_of(address: str) -> str:
    """Options that put a user network around a guest's address, so that one that is set inside the guest works."""
    interface = IPv4Interface(address)
    free = (host for host in interface.network.hosts() if host != interface.ip)
    host, dns = next(free), next(free)
    return f"net={interface.network},host={host},dns={dns},dhcpstart={interface.ip}"


def _console(machine: Definition) -> Iterator[Option]:
    yield "-vga", "std"
    yield "-display", f"vnc=unix:{VNC_SOCKET}" if machine.display == "vnc" else machine.display
    # Emptied at each start, also by hand: what an earlier start said proves nothing about this one.
    serial = f"socket,id=serial0,path={SERIAL_SOCKET},server=on,wait=off,logfile={SERIAL_LOG},logappend=off"
    yield "-chardev", serial
    yield "-serial", "chardev:serial0"


def _control(_machine: Definition) -> Iterator[Option]:
    yield "-chardev", f"socket,id=qmp,path={QMP_SOCKET},server=on,wait=off"
    yield "-mon", "chardev=qmp,mode=control"
    # A second monitor on standard input and output: start.sh makes it write every event to a file (events.py).
    yield "-chardev", "stdio,id=events,signal=off"
    yield "-mon", "chardev=events,mode=control"
    yield "-action", "panic=pause"
    yield "-device", "pvpanic"
    yield "-device", "virtio-rng-pci"
    yield "-device", "virtio-serial-pci"
    yield "-chardev", f"socket,id=agent,path={AGENT_SOCKET},server=on,wait=off"
    yield "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"


def _extra(machine: Definition) -> Iterator[Option]:
    if machine.extra:
        yield machine.extra


_PARTS = (_identity, _board, _disks, _networks, _console, _control, _extra)
