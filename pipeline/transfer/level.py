"""Choosing the compression level while an export runs: spare processor time is spent on fewer bytes to send."""

from __future__ import annotations

from pathlib import Path

_STEP = 64 << 20
"""Stored bytes sent between two looks."""
_IDLE, _BUSY = 0.4, 0.15
"""Share of idle processor time above which the network is what we wait for, and below which it is not."""


class LevelControl:
    """Starts at `level`, never goes below it nor above `top`."""

    def __init__(self, level: int, top: int) -> None:
        self._least, self._top = level, max(level, top)
        self._level = level
        self._sent = 0
        self._last = _processor_time()

    def after(self, sent: int) -> int:
        """The level to use now that `sent` bytes are stored."""
        if sent - self._sent < _STEP:
            return self._level
        self._sent = sent
        idle, total = _processor_time()
        share = (idle - self._last[0]) / max(total - self._last[1], 1)
        self._last = (idle, total)
        if share > _IDLE:
            self._level = min(self._level + 1, self._top)
        elif share < _BUSY:
            self._level = max(self._level - 1, self._least)
        return self._level


def _processor_time() -> tuple[int, int]:
    """(idle, total) clock ticks of all processors: first line of `/proc/stat`, proc(5)."""
    try:
        fields = [int(f) for f in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return 0, 0
    return fields[3] + fields[4], sum(fields)
