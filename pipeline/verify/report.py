"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class VerifyReport:
    """`problems` name objects and what needs them; `ranges` are (offset, length) in bytes of a disk that differ."""

    checked: str
    problems: list[str] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems and not self.ranges
