"""Points of a plan's machines while they work, by the plan's source: what keeps the way home short."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.catalogue import Point, latest
from pipeline.errors import FailbackError, SessionHeld
from pipeline.home.site import Ground
from pipeline.plans.model import Plan
from pipeline.runs.ownership import current
from pipeline.source import Source
from pipeline.sources.export import export_from


@dataclass(frozen=True, slots=True)
class Exported:
    """What came of one machine: a point, or why there is none. `error`: it should have been one."""

    machine: str
    point: str = ""
    skipped: str = ""
    error: FailbackError | None = None


def export_all(ground: Ground, plan: Plan, source: Source) -> Iterator[Exported]:
    """One after the other; what is wrong with one machine does not keep the others from being exported."""
    for name, machine in plan.machines.items():
        try:
            if not source.able(name, machine.source).reads:
                yield Exported(name, skipped="its source gives no disks")
                continue
            owner = current(ground.repository, name)
            if owner.side != "takeover":
                yield Exported(name, skipped=f"it is {owner.side}, by run {owner.run}")
                continue
            yield Exported(name, point=_export(ground, plan, source, name).manifest.label)
        except SessionHeld as error:
            yield Exported(name, skipped=error.message)
        except FailbackError as error:
            yield Exported(name, error=error)


def _export(ground: Ground, plan: Plan, source: Source, name: str) -> Point:
    machine = plan.machines[name]
    parent = latest(ground.repository, name)
    point = export_from(ground, source, name, machine.source, parent=parent, tags=dict(machine.tags)).point
    source.exported(name, machine.source, point)
    return point
