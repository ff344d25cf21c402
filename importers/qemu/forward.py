"""Ports of the guest on 127.0.0.1, through QEMU's user-mode network (slirp); added while the machine runs.

What exists is asked of QEMU each time (`info usernet`, qemu/net/slirp.c and libslirp's slirp_connection_info):

      Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
      TCP[SYN_SENT]      14       127.0.0.1 40001    192.168.7.40    80     0     0
      TCP[HOST_FORWARD]  12       127.0.0.1 40001    192.168.7.40    80     0     0
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from importers.qemu.arguments import forwarding, guest_address
from importers.qemu.definition import Definition
from importers.qemu.qmp import Qmp
from pipeline.errors import TargetError

HOST = "127.0.0.1"
_TRIES = 5
_LINE = re.compile(r"^\s*TCP\[(\w+)\]\s+-?\d+\s+(\S+)\s+(\d+)\s+(\S+)\s+(\d+)\s", re.MULTILINE)
_ANSWERED = ("ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSING", "LAST_ACK")
"""States of a connection whose other side, the guest, said that it takes it (RFC 9293)."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One that comes in; those that the guest opened to the outside have its own address as source."""

    state: str
    here: int
    """Port of this host."""
    there: int
    """Port of the guest."""


def forward(qmp: Qmp, machine: Definition, port: int) -> int | None:
    """Port of this host that leads to the guest's; None when no card of the machine is in user mode."""
    card = forwarding(machine)
    if card < 0:
        return None
    for row in _rows(qmp):
        if row.state == "HOST_FORWARD" and row.there == port:
            return row.here
    said = ""
    for _ in range(_TRIES):
        here = _free_port()  # somebody may take it before QEMU does
        said = qmp.monitor(f"hostfwd_add net{card} tcp:{HOST}:{here}-{guest_address(machine.cards[card])}:{port}")
        if not said:
            return here
    raise TargetError(f"no way to port {port} of {machine.name} could be made: {said}")


def accepted(qmp: Qmp, port: int) -> bool | None:
    """Whether the guest accepted one of the connections that are open to its port; None: none is open."""
    states = [row.state for row in _rows(qmp) if row.there == port and row.state != "HOST_FORWARD"]
    return any(state in _ANSWERED for state in states) if states else None


def _rows(qmp: Qmp) -> list[_Row]:
    found = _LINE.findall(qmp.monitor("info usernet"))
    return [_Row(state, int(here), int(there)) for state, source, here, _destination, there in found if source == HOST]


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def taken(port: int) -> bool:
    """Whether somebody listens on this port of 127.0.0.1, or we have no right to."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
