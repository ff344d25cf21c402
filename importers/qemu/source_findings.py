"""What can be known of a machine in QEMU before it is given up: its agent, its disks, and that it can start again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from importers.qemu import agent, moment
from importers.qemu.source_settings import QemuSettings
from importers.qemu.takeover import Image, Run, Takeover
from pipeline.finding import Finding
from pipeline.units import size

_INHERITED = re.compile(r"(?:^|[,=])(?:fds?|vhostfds?)=\d|/dev/fdset/|/dev/fd/")
"""What a command line refers to and a new process would not have."""


def findings(takeover: Takeover, settings: QemuSettings, run: Run, images: Sequence[Image]) -> Iterator[Finding]:
    """`run` as it was seen now; `images` are those that are to be read. Changes nothing."""
    for number, image in enumerate(images):
        if image.format != "qcow2":
            yield Finding(
                "note",
                f"disk {number}",
                f"it is {image.format}: what changed is known until QEMU ends, and not after it",
            )
    total = sum(image.size for image in images)
    if (left := moment.room(takeover)) < total // 10:
        yield Finding(
            "warning",
            "room",
            f"{takeover.folder} has {size(left)} left for what the guest overwrites while {size(total)} are read; "
            "when it is full the guest's writes fail",
            "make room there, or read while it writes little",
        )
    try:
        agent.ask(takeover.folder, "guest-ping", name=takeover.agent_name)
    except (OSError, agent.AgentError) as error:
        kind: Any = "error" if settings.quiesce else "warning"
        yield Finding(
            kind,
            "agent",
            f"no guest agent answers ({error}): its file systems are not frozen, points are as after a power cut",
            "install and start qemu-guest-agent in the guest, and give QEMU its port",
        )
    if settings.quiesce is None:
        yield Finding("warning", "quiesce", "no services are stopped before the last point", "give `quiesce`")
    elif settings.unquiesce is None:
        yield Finding("error", "unquiesce", "services that are stopped would not start again", "give `unquiesce`")
    if settings.lock is None:
        yield Finding(
            "warning",
            "lock",
            "whatever started this QEMU may start it again; only our own note says that it may not",
            "give `lock` and `unlock`, such as systemctl disable and enable",
        )
    elif settings.unlock is None:
        yield Finding("error", "unlock", "it could be locked, and not unlocked again", "give `unlock`")
    strange = next((word for word in run.arguments if _INHERITED.search(word)), "")
    if settings.start is None and (strange or not run.arguments):
        yield Finding(
            "error",
            "start",
            f"it was given what a new process would not have ({strange or 'its command line cannot be read'})",
            "give `start`, a program that starts it",
        )
