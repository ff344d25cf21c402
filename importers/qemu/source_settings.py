"""What a plan says of a machine that runs in QEMU at the takeover site."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from manifests.machine import Model
from pipeline.verify.duration import Seconds

Command = Annotated[tuple[str, ...], Field(min_length=1)]


class QemuSettings(Model):
    """Of one machine."""

    folder: str = ""
    qmp: str = ""
    """Path of the QMP socket, where it is not `qmp.sock` in the folder."""
    agent: str = ""
    disks: tuple[str, ...] = ()
    """Devices or nodes of QEMU, in the machine's order. Empty: all that the guest can write to."""
    hardware: dict[str, Any] = Field(default_factory=dict)
    quiesce: Command | None = None
    """A program in the guest that stops its services; its arguments. By the guest agent."""
    unquiesce: Command | None = None
    lock: Command | None = None
    """A program on this host that keeps what started the machine from starting it again."""
    unlock: Command | None = None
    start: Command | None = None
    """A program on this host that starts the machine. Without it QEMU is started as it was."""
    retire: Command | None = None
    seconds: Annotated[Seconds, Field(gt=0)] = 300.0
    """That any program may take."""
    environment: tuple[str, ...] = ()
    """Names of variables that programs on this host get besides."""
