"""What came of bringing a machine home or trying it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.finding import Finding
from pipeline.laps import Steps
from pipeline.target import Build, DiskRestored, Importer, Observation, Stage


class Verdict(Protocol):
    """What a verification says (`pipeline.verify.results.Results`)."""

    @property
    def verified(self) -> bool: ...

    @property
    def why(self) -> str:
        """Why not."""


Verify = Callable[[Importer, Build, bool], Verdict]
"""Looks at a machine that runs; returns when it knows. True: it was switched on just now, not by an earlier command."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """What is there now, and what was seen on the way."""

    stage: Stage
    build: Build | None = None
    """None: no machine was to be made, or it was a rehearsal's."""
    findings: tuple[Finding, ...] = ()
    verdict: Verdict | None = None
    """None: nothing was to be verified."""
    running: bool = False
    seen: Observation | None = None
    """What was seen of it last; None: it was not switched on."""
    steps: Steps = field(default_factory=dict)
    """Where the time went."""

    @property
    def disks(self) -> tuple[DiskRestored, ...]:
        return self.stage.disks
