"""What a mapping may say for QEMU alone: `options: {qemu: {...}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from importers.qemu.accelerator import Wish
from manifests.machine import Model
from pipeline.errors import UsageError

Port = Annotated[int, Field(ge=1, le=65535)]
BINARY = "qemu-system-x86_64"


class QemuOptions(Model):
    """Empty: as it fits the machine and this host."""

    accelerator: Wish = "auto"
    """auto: KVM when it works here, else TCG, which interprets."""
    machine: Literal["q35", "pc"] | None = None
    cpu: str = Field(default="", pattern=r"^[A-Za-z0-9_.,=+-]*$")
    """QEMU's model and flags. Empty: the host's with KVM, all that TCG knows without."""
    display: Literal["none", "vnc", "gtk", "sdl"] = "none"
    """vnc: on the socket vnc.sock in the machine's folder."""
    forwards: dict[Port, Port] = Field(default_factory=dict)
    """Port of 127.0.0.1 -> port of the guest, in production and on user networks; others are opened when asked for."""
    extra: tuple[str, ...] = ()
    """More arguments for QEMU, as they are."""


def parse_options(values: Mapping[str, Any]) -> QemuOptions:
    """Raises UsageError, which names the key and what is allowed."""
    try:
        return QemuOptions.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(QemuOptions.model_fields))
            raise UsageError(f"options for qemu: {key} is unknown", remedy=f"known are {known}") from error
        raise UsageError(
            f"options for qemu: {key} is {first['input']!r}", remedy=f"correct the mapping: {first['msg']}"
        ) from error
