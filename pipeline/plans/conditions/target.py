"""`target`: the look at it beforehand finds no error, for any machine."""

from __future__ import annotations

from manifests.names import PointName
from pipeline.catalogue import latest, resolve
from pipeline.home.ready import findings
from pipeline.plans.condition import Answer, World
from pipeline.plans.conditions.machines import LookAtMachines, OfMachines, reads
from pipeline.target import Intent
from pipeline.units import count
from pipeline.wanted import resolve as resolve_mapping


class TargetSettings(OfMachines):
    pass


class TargetLook(LookAtMachines[TargetSettings]):
    Settings = TargetSettings

    def look_at(self, machine: str, world: World) -> Answer:
        if latest(world.repository, machine) is None and reads(machine, world):
            # The run itself exports it once the conditions hold, and looks at the target then: do not wait for that.
            return Answer(
                True, f"{machine}: it has no point yet; {world.plan.target} is looked at when the run made one"
            )
        point = resolve(world.repository, PointName(machine, None))
        wanted = resolve_mapping(world.plan.mapping, point.manifest, world.plan.target)
        found = findings(world.site(machine), point, wanted, Intent("production", boots=True))
        errors = [finding for finding in found if finding.severity == "error"]
        if errors:
            first = f"{errors[0].subject}: {errors[0].message}"
            more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
            return Answer(False, f"{machine}: {first}{more}")
        warned = count(sum(finding.severity == "warning" for finding in found), "warning")
        return Answer(True, f"{machine}: {world.plan.target} is ready, {warned}")
