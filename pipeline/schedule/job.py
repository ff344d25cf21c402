"""One thing that is done by the clock, and the mark by which we know what we wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import get_args

from pipeline.plans.model import Job as Kind
from pipeline.plans.model import Plan

KINDS: tuple[Kind, ...] = get_args(Kind)
PASSED_ON = ("CONFIG", "STATE_DIR", "KEY_FILE", "PASSPHRASE_FILE", "KEY_COMMAND", "REPOSITORY_ID", "KEY_FINGERPRINT")
"""Settings that are handed on when they are in the environment of who installs a schedule: none is a secret."""
_MARK = "# failback schedule "


@dataclass(frozen=True, slots=True)
class Mark:
    """The first line of a file, or the line above one of a crontab: whose it is. Without it we touch nothing."""

    repository: str
    """Its id."""
    plan: str
    job: str

    def __str__(self) -> str:
        return _MARK + json.dumps(asdict(self), sort_keys=True)

    @property
    def name(self) -> str:
        """Of units: also two repositories may have plans of one name."""
        return f"failback-{self.plan}-{self.job}-{self.repository[:8]}"

    def fits(self, repository: str, plan: str, jobs: Sequence[str] = ()) -> bool:
        return (self.repository, self.plan) == (repository, plan) and (not jobs or self.job in jobs)


def parse_mark(line: str) -> Mark | None:
    """None: this is no mark of ours."""
    if not line.startswith(_MARK):
        return None
    try:
        return Mark(**json.loads(line[len(_MARK) :]))
    except (ValueError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Job:
    """`calendar` is systemd's; `command` what is called; `environment` what it needs besides what the host gives."""

    mark: Mark
    calendar: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


def jobs_of(plan: Plan, repository: str, failback: Sequence[str]) -> list[Job]:
    """All of a plan, in the order of KINDS. `failback` is the command line up to and with the repository's address."""
    environment = {f"FAILBACK_{n}": v for n in PASSED_ON if (v := os.environ.get(f"FAILBACK_{n}", ""))}
    return [
        Job(
            Mark(repository, plan.name, kind),
            plan.schedule[kind],
            (*failback, "--json", "--quiet", "schedule", "run", plan.name, kind),
            environment,
        )
        for kind in KINDS
        if kind in plan.schedule
    ]
