"""A person who is asked whether a machine is well: what is asked, what was said, and how it is written down."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_ANSWER = re.compile(r"\s*(yes|no)\b[\s,:]*(.*)", re.IGNORECASE)
LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Question:
    """What a check asks about a machine, and what there is to look at."""

    machine: str
    check: str
    text: str
    picture: Path | None
    results: tuple[str, ...]
    """Of the other checks so far, a line each."""
    file: Path
    """Where an answer may be written: `yes NAME` or `no NAME`."""

    def lines(self) -> list[str]:
        """For people."""
        shown = str(self.picture) if self.picture else "there is none to be had"
        return [f"{self.machine}: {self.text}", f"  picture: {shown}", *(f"  {line}" for line in self.results)]


@dataclass(frozen=True, slots=True)
class Said:
    """`by` is the name that was given, `where` how it was said."""

    yes: bool
    by: str
    time: datetime
    where: str
    reason: str = ""

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"{self.by} said {'yes' if self.yes else 'no'} at {self.time:%Y-%m-%d %H:%M:%S} UTC, {self.where}{why}"


def parse_answer(text: str) -> tuple[bool, str] | None:
    """(yes, name) of the first line, such as `yes Ada`; the name may be empty. None: neither yes nor no."""
    found = _ANSWER.fullmatch(text.strip().splitlines()[0]) if text.strip() else None
    if found is None:
        return None
    return found[1].lower() == "yes", " ".join(found[2].split())[:LONGEST_NAME]
