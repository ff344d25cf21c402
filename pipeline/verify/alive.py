"""Is the machine still there, while it is checked?"""

from __future__ import annotations

import re

from pipeline.errors import TargetError
from pipeline.verify.subject import Subject

_PANIC = re.compile(r"^(?:<\d>)?(?:\[[^\]\n]*\][ \t]*)*(Kernel panic - not syncing.*)$", re.MULTILINE)
"""Linux, kernel/panic.c: the line that a panic prints on every console."""
PAUSE_SECONDS = 5.0
"""A snapshot may hold a machine for a moment."""


class Alive:
    """Remembers since when a machine is paused."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._paused: float | None = None
        self.remark = ""
        """What the platform said last of a machine that is on."""

    def look(self, now: float) -> str:
        """Empty, or why there is no more to be checked. A platform that cannot be asked now says nothing."""
        try:
            seen = self._subject.observe()
        except TargetError:
            return ""
        reason = f": {seen.reason}" if seen.reason else ""
        if seen.power == "off":
            return f"the machine is off{reason}"
        panic = _PANIC.search(seen.console.replace("\r", ""))
        if panic:
            return f"the guest panicked: {panic[1].strip()}"
        if seen.power != "paused":
            self._paused = None
            self.remark = seen.reason
            return ""
        self._paused = now if self._paused is None else self._paused
        if "panic" in seen.reason.lower() or now - self._paused >= PAUSE_SECONDS:
            return f"the machine is paused{reason}"
        return ""
