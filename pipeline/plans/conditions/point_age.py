"""`point-age`: the newest point of each machine is young enough."""

from __future__ import annotations

from datetime import datetime

from manifests.names import PointName
from pipeline.catalogue import resolve
from pipeline.plans.condition import Answer, World
from pipeline.plans.conditions.machines import LookAtMachines, OfMachines
from pipeline.units import duration
from pipeline.verify.duration import LongSeconds

SKEW_SECONDS = 300.0
"""By which the clock of who exported may be ahead of the store's."""


class PointAgeSettings(OfMachines):
    younger: LongSeconds
    """Than this: the time since its export began. What the machine wrote later is not in it."""


class PointAgeLook(LookAtMachines[PointAgeSettings]):
    Settings = PointAgeSettings

    def look_at(self, machine: str, world: World) -> Answer:
        manifest = resolve(world.repository, PointName(machine, None)).manifest
        age = (world.now - datetime.fromisoformat(manifest.started)).total_seconds()
        if age < -SKEW_SECONDS:
            return Answer(
                False,
                f"{machine}: the newest point, {manifest.label}, is dated {duration(-age)} ahead of the store's clock: "
                "the clock of its exporter is wrong",
            )
        younger = self.settings.younger
        seen = f"{machine}: newest point {manifest.label} is {duration(max(age, 0.0))} old"
        return Answer(age < younger, seen if age < younger else f"{seen}, wanted: younger than {duration(younger)}")
