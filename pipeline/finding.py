"""What was found out before anything was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found beforehand. An `error` stops the caller; a `warning` is shown; a `note` is worth knowing."""

    severity: Severity
    subject: str
    """What it is about: `disk 0`, `network lab`, `firmware`, ..."""
    message: str
    remedy: str = ""
    """What the user can do. Errors always say it."""
