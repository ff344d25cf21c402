"""`delta`: little is left to be moved to the target for the newest points."""

from __future__ import annotations

from manifests.names import PointName
from pipeline.catalogue import resolve
from pipeline.mapping import Size
from pipeline.plans.condition import Answer, World
from pipeline.plans.conditions.machines import LookAtMachines, OfMachines
from pipeline.units import size
from pipeline.wanted import resolve as resolve_mapping


class DeltaSettings(OfMachines):
    smaller: Size
    """Than this, of each machine: stored bytes between what is staged at the target and the newest point."""


class DeltaLook(LookAtMachines[DeltaSettings]):
    Settings = DeltaSettings

    def look_at(self, machine: str, world: World) -> Answer:
        point = resolve(world.repository, PointName(machine, None))
        wanted = resolve_mapping(world.plan.mapping, point.manifest, world.plan.target)
        site = world.site(machine)
        place = site.find()
        disks = site.importer.forecast(place, point, wanted)
        left, smaller = sum(disk.to_move for disk in disks), self.settings.smaller
        staged = place.stage if place is not None else None
        since = f"since {staged.machine}@{staged.sequence}" if staged is not None else "nothing is staged yet"
        seen = f"{machine}: {size(left)} to move for {point.manifest.label} ({since})"
        return Answer(left < smaller, seen if left < smaller else f"{seen}, wanted: less than {size(smaller)}")
