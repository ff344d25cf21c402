"""A point of one machine, with the disks that its source gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.catalogue import Point, load
from pipeline.errors import CatalogueError, SourceError
from pipeline.home.site import Ground
from pipeline.laps import Laps, Steps
from pipeline.source import Source
from pipeline.transfer.disk_export import DiskResult
from pipeline.transfer.export import export_machine
from pipeline.transfer.export_request import ExportOptions


@dataclass(frozen=True, slots=True)
class Taken:
    """A point that was committed, and what it took."""

    point: Point
    disks: Sequence[DiskResult]
    steps: Steps
    """moment (until the disks are open), those of the export, and release (the disks are let go)."""


def export_from(
    ground: Ground,
    source: Source,
    machine: str,
    settings: Mapping[str, Any],
    *,
    parent: Point | None,
    tags: dict[str, str],
    final: bool = False,
    memory: int | None = None,
) -> Taken:
    """The point after `parent`, committed. `source.exported` is the caller's to say. `memory`: bytes; None: the
    ground's. Raises SourceError, CatalogueError when somebody fenced the export, and what an export raises."""
    laps = Laps()
    with source.reading(machine, settings, parent=parent, final=final) as reading:
        laps.lap("moment")
        hardware = reading.machine or (parent.manifest.machine if parent else None)
        if hardware is None:
            raise SourceError(
                f"nothing is known of the hardware of {machine}",
                remedy=f"export it once with `failback export {machine} --hardware FILE`, or name it in the plan",
            )
        made = export_machine(
            ground.repository,
            hardware.model_copy(update={"name": machine}),
            list(reading.disks),
            ExportOptions(
                state=ground.state,
                final=final,
                consistency=reading.consistency,
                tags=tags,
                memory=ground.memory if memory is None else memory,
                uploads=ground.parallel,
            ),
            watch=ground.control.watch,
            tell=ground.control.tell,
        )
        laps.lap("export", made.steps)
    point = load(ground.repository, machine, made.sequence)
    if point is None:
        raise CatalogueError(f"{machine}@{made.sequence} is void", remedy="the next export makes another point")
    laps.lap("release")
    return Taken(point, made.disks, laps.steps)
