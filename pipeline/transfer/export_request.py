"""What a caller asks of an export: which disks, what is known of their changes, and how to go about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from manifests.manifest import Consistency
from pipeline.catalogue import Point
from pipeline.exporters.base import Exporter


@dataclass(frozen=True, slots=True)
class ChangedBlocks:
    """What the caller knows of a disk's changes: (offset, length) in bytes, all that changed since point `since`."""

    since: int
    extents: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class DiskSource:
    """One disk to export."""

    exporter: Exporter
    name: str
    source_format: str = "raw"
    bus: str = ""
    boot: bool = False
    serial: str = ""
    changes: ChangedBlocks | None = None
    use_change_maps: bool = True


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How to export. `memory` in bytes bounds what is on its way; `workers` 0 means by the number of CPUs."""

    state: Path
    full: bool = False
    final: bool = False
    dry_run: bool = False
    keep_going: bool = False
    consistency: Consistency = "crash"
    bases: tuple[Point, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    chunk_size: int | None = None
    memory: int = 256 << 20
    workers: int = 0
    uploads: int = 16
    level: int = 1
    top_level: int = 6
