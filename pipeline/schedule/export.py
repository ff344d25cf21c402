"""Points of a plan's machines while they work, by the plan's source: what keeps the way home short."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.catalogue import Point, latest, load
from pipeline.errors import CatalogueError, FailbackError, SessionHeld, SourceError
from pipeline.home.site import Ground
from pipeline.plans.model import Plan
from pipeline.runs.ownership import current
from pipeline.source import Source
from pipeline.transfer.export import export_machine
from pipeline.transfer.export_request import ExportOptions


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
    machine, repository = plan.machines[name], ground.repository
    parent = latest(repository, name)
    with source.reading(name, machine.source, parent=parent, final=False) as reading:
        hardware = reading.machine or (parent.manifest.machine if parent else None)
        if hardware is None:
            raise SourceError(
                f"nothing is known of the hardware of {name}",
                remedy=f"export it once with `failback export {name} --hardware FILE`, or name it in the plan",
            )
        made = export_machine(
            repository,
            hardware.model_copy(update={"name": name}),
            list(reading.disks),
            ExportOptions(
                state=ground.state,
                consistency=reading.consistency,
                tags=dict(machine.tags),
                memory=ground.memory,
                uploads=ground.parallel,
            ),
            watch=ground.control.watch,
            tell=ground.control.tell,
        )
    point = load(repository, name, made.sequence)
    if point is None:
        raise CatalogueError(f"{name}@{made.sequence} is void", remedy="the next export makes another point")
    source.exported(name, machine.source, point)
    return point
