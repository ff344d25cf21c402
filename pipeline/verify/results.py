"""What the checks of a machine found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Level = Literal["required", "advisory"]
Status = Literal["passed", "failed", "not applicable", "skipped", "error"]
"""not applicable: cannot be looked at on this platform or network. skipped: never begun. error: the hook itself is set
up wrongly or has a bug."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check ended. `seen` is what the last attempt saw, `seconds` from its begin to its end, waits included."""

    name: str
    hook: str
    level: Level
    status: Status
    seen: str
    attempts: int = 0
    seconds: float = 0.0
    artifacts: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Results:
    """All checks of one machine, in the order in which they were given."""

    machine: str
    checks: tuple[CheckResult, ...]
    seconds: float
    ended: str = ""
    """Why the checks ended before all were through: the machine went off, the deadline passed. Empty: they did not."""
    remark: str = ""
    """What the platform said last of a machine that was on and yet not well, such as one that keeps resetting."""

    @property
    def verified(self) -> bool:
        """The machine stayed up, every required check that applies passed, and at least one did.

        An advisory check alone verifies only where nothing is required.
        """
        return not self.why

    @property
    def why(self) -> str:
        """Why the machine is not verified; empty when it is."""
        if self.ended:
            return self.ended
        required = [check for check in self.checks if check.level == "required"]
        wrong = [check for check in required if check.status not in ("passed", "not applicable")]
        if wrong:
            said = [f"{check.name}: {check.status}" for check in wrong]
            return "; ".join([*said, f"the machine: {self.remark}"] if self.remark else said)
        if not self.checks:
            return "nothing was checked"
        if not any(check.status == "passed" for check in required or self.checks):
            return "no required check applies" if required else "no check passed"
        return ""

    def count(self, status: Status) -> int:
        return sum(check.status == status for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Values that JSON can hold."""
        return {
            "machine": self.machine,
            "verified": self.verified,
            "why": self.why,
            "ended": self.ended,
            "remark": self.remark,
            "seconds": round(self.seconds, 3),
            "checks": [
                {
                    "name": check.name,
                    "hook": check.hook,
                    "level": check.level,
                    "status": check.status,
                    "seen": check.seen,
                    "attempts": check.attempts,
                    "seconds": round(check.seconds, 3),
                    "artifacts": [str(path) for path in check.artifacts],
                }
                for check in self.checks
            ],
        }
