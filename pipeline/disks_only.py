"""What importers of platforms without machines have in common: the verbs that they cannot have."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from pipeline.errors import Unsupported
from pipeline.finding import Finding
from pipeline.place import Build, CommandResult, Endpoint, Observation, Place, Purpose, Stage
from pipeline.wanted import Network, Wanted


class DisksOnly:
    """For importers with `machines=False`: disks are found by where they are, so nothing bears a marker, and nothing
    is built on them. Callers do not call these; whoever does gets Unsupported, or "there is none"."""

    def examine(self) -> list[Finding]:
        return []

    def find(self, marker: uuid.UUID) -> Place | None:
        return None

    def build(self, place: Place, stage: Stage, wanted: Wanted, purpose: Purpose) -> Build:
        raise _no_machines()

    def boot(self, build: Build, networks: Sequence[Network]) -> Build:
        raise _no_machines()

    def observe(self, build: Build) -> Observation:
        raise _no_machines()

    def picture(self, build: Build) -> bytes | None:
        return None

    def reach(self, build: Build, port: int) -> Endpoint | None:
        return None

    def accepted(self, build: Build, port: int) -> bool | None:
        return None

    def command(self, build: Build, arguments: Sequence[str], *, stdin: bytes = b"", seconds: float) -> CommandResult:
        raise _no_machines()

    def stop(self, build: Build, *, seconds: float = 60.0) -> Observation:
        raise _no_machines()

    def finish(self, place: Place, build: Build, *, keep: bool) -> Stage:
        raise _no_machines()

    def remove(self, marker: uuid.UUID) -> bool:
        return False

    def adopt(self, reference: str, marker: uuid.UUID) -> Place:
        raise _no_machines()

    def close(self) -> None:
        """There is nothing to let go of."""


def _no_machines() -> Unsupported:
    return Unsupported("this target has disks and no machines", remedy="use a target that builds machines")
