"""Lines that fit a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import wrap

_COLUMN = re.compile(r" {2,}(?=\S)")


def fitted(line: str, width: int) -> list[str]:
    """A line as lines of at most `width` characters; what is carried over stands below the text of its last column."""
    if len(line) <= width:
        return [line]
    columns = [match.end() for match in _COLUMN.finditer(line) if match.end() <= width // 2]
    hanging = columns[-1] if columns else 0
    if hanging == len(line) - len(line.lstrip()):  # a line without columns
        hanging += 2
    head, text = line[:hanging], line[hanging:]
    if not head.strip():
        head, text = line[: hanging - 2], line[hanging - 2 :]
    return wrap(
        text,
        width,
        initial_indent=head,
        subsequent_indent=" " * hanging,
        break_on_hyphens=False,
    )


def shortened(line: str, width: int) -> str:
    """One line, cut."""
    return line if len(line) <= width else f"{line[: width - 1]}…"


def screen(top: Sequence[str], bottom: Sequence[str], *, width: int, height: int) -> list[str]:
    """Both fitted, and of `top` as much as leaves room for all of `bottom`, which says what to do."""
    above = [part for line in top for part in fitted(line, width)]
    below = [part for line in bottom for part in fitted(line, width)]
    room = max(1, height - len(below))
    if len(above) > room:
        hidden = len(above) - room + 1
        above = [*above[: room - 1], f"  … {hidden} more lines: `failback run show` has them all"]
    return [*above, *below]
