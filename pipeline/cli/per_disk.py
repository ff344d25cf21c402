"""Options that are given once for a machine, or once for each of its disks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.errors import UsageError

_NUMBERED = re.compile(r"(\d{1,4})=(.*)", re.DOTALL)


def per_disk(values: Sequence[str], disks: int, option: str, *, one_for_all: bool) -> list[str | None]:
    """The value for each of `disks` disks, None where none is given.

    A value is written `N=VALUE`, or stands for the disk whose turn it is. With `one_for_all` a single plain value is
    meant for every disk.
    """
    if one_for_all and len(values) == 1 and not _NUMBERED.fullmatch(values[0]):
        return [values[0]] * disks
    found: list[str | None] = [None] * disks
    for turn, value in enumerate(values):
        match = _NUMBERED.fullmatch(value)
        number, text = (int(match[1]), match[2]) if match else (turn, value)
        if number >= disks:
            raise UsageError(
                f"{option} {value}: there is no disk {number}", remedy=f"the disks are 0 to {disks - 1}, in order"
            )
        if found[number] is not None:
            raise UsageError(f"{option} is given twice for disk {number}", remedy=f"write {option} N=VALUE")
        found[number] = text
    return found
