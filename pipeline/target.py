"""What a caller asks of an importer, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.catalogue import Point
from pipeline.progress import Counters, Watch
from pipeline.repository import Repository


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """Where disks go. `devices` maps a disk's number to `PATH:size=BYTES` or `PATH:serial=TEXT`; all other disks become
    files in `out`. `memory` in bytes."""

    out: Path | None
    state: Path
    image_format: str = "raw"
    seeds: tuple[str, ...] = ()
    devices: dict[int, str] = field(default_factory=dict)
    dry_run: bool = False
    memory: int = 256 << 20
    parallel: int = 6


@dataclass(frozen=True, slots=True)
class DiskRestored:
    """One disk that now equals the point (or would, after a dry run)."""

    number: int
    target: str
    mode: str
    """full, refresh, hashed (the target was read and only what differs was written), or unchanged."""
    reason: str
    digest: str
    proof: str
    """How the digest was proved on the target."""
    counters: Counters
    to_move: int = 0
    """Dry run: stored bytes that would be fetched."""


class Importer(Protocol):
    """What an entry point of the group `failback.importers` names: a class without arguments."""

    def restore(
        self, repository: Repository, point: Point, request: RestoreRequest, *, watch: Watch
    ) -> list[DiskRestored]:
        """Make target disks equal the point."""
