"""What a running machine says without end takes no more room than its end: the serial console and the events.

A guest may fill the host's disk by talking, and QEMU has no limit for either file. Space is punched out of their
beginnings, which races with nobody: sizes and offsets stay, nothing that QEMU writes meanwhile is touched, and readers
look at the ends. It happens whenever failback looks at the machine.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from importers.qemu.arguments import SERIAL_LOG
from importers.qemu.events import EVENTS_FILE
from pipeline.writers.linux import FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, fallocate

KEEP = 8 << 20
"""Bytes of either that stay: much more than anybody looks at."""
_STEP = 1 << 20
"""Holes end at multiples of this: a few system calls for megabytes."""


def trim(folder: Path) -> None:
    """On file systems that cannot punch holes nothing happens."""
    for name in (SERIAL_LOG, EVENTS_FILE):
        with contextlib.suppress(OSError), (folder / name).open("r+b") as file:
            end = (file.seek(0, 2) - KEEP) // _STEP * _STEP
            if end > 0:
                fallocate(file.fileno(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, end)
