"""Ranges of bytes that a source could not read, kept few."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

Range = tuple[int, int]
"""(offset, length) in bytes."""


def join_ranges(ranges: Iterable[Range], *, most: int) -> list[Range]:
    """The same bytes as ascending ranges that do not touch. More than `most` of them are joined over the smallest gaps
    between them: then they cover more bytes than were given, but never fewer."""
    joined: list[Range] = []
    for offset, length in sorted(ranges):
        if joined and offset <= sum(joined[-1]):
            first, known = joined[-1]
            joined[-1] = first, max(known, offset + length - first)
        else:
            joined.append((offset, length))
    if len(joined) <= most:
        return joined
    starts_at = np.array([offset for offset, _ in joined], "<u8")
    ends_at = np.array([offset + length for offset, length in joined], "<u8")
    gaps = starts_at[1:] - ends_at[:-1]
    # A stable order: equal gaps are closed from the front, so that the same disk gives the same ranges.
    kept = np.sort(np.argsort(gaps, kind="stable")[len(joined) - most :])
    starts, ends = [starts_at[0], *starts_at[kept + 1]], [*ends_at[kept], ends_at[-1]]
    return [(int(start), int(end) - int(start)) for start, end in zip(starts, ends, strict=True)]
