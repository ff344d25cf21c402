"""Loop devices that have serial numbers, as disks of a machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbd.tools import loop

UDEV = Path("/run/udev/data")


@contextmanager
def numbered(file: Path, serial: str) -> Iterator[str]:
    """udev's database is where the kernel has none."""
    with loop(file) as device:
        number = Path(device).stat().st_rdev
        note = UDEV / f"b{os.major(number)}:{os.minor(number)}"
        UDEV.mkdir(parents=True, exist_ok=True)
        note.write_text(f"E:ID_SERIAL={serial}\n")
        try:
            yield device
        finally:
            note.unlink()
