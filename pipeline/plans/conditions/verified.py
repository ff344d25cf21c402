"""`verified`: a point of each machine was found good, not long ago."""

from __future__ import annotations

from typing import Literal

from pipeline.catalogue import forgotten, latest, load
from pipeline.collect.record import verifications, verified_manifests
from pipeline.plans.condition import Answer, World
from pipeline.plans.conditions.machines import LookAtMachines, OfMachines
from pipeline.units import duration
from pipeline.verify.duration import LongSeconds


class VerifiedSettings(OfMachines):
    within: LongSeconds
    """So long ago at most, by the store's clock."""
    how: Literal["read", "boot", "any"] = "any"
    """read: all its data were read; boot: it was started and its checks passed."""
    newest: bool = False
    """Only the newest point counts."""


class VerifiedLook(LookAtMachines[VerifiedSettings]):
    Settings = VerifiedSettings

    def look_at(self, machine: str, world: World) -> Answer:
        repository, settings = world.repository, self.settings
        ways = "" if settings.how == "any" else f" by `{settings.how}`"
        last = latest(repository, machine) if settings.newest else None
        gone = forgotten(repository, machine)
        for noted in verifications(repository, machine):
            if settings.how not in ("any", noted.how) or noted.sequence in gone:
                continue
            if last is not None and noted.sequence != last.manifest.sequence:
                continue
            point = load(repository, machine, noted.sequence)
            if point is None or verified_manifests(repository, point).get(noted.how) != point.object_hash:
                continue
            age = max((world.now - noted.time).total_seconds(), 0.0)
            seen = f"{machine}: {point.manifest.label} was found good by `{noted.how}` {duration(age)} ago"
            holds = age <= settings.within
            return Answer(holds, seen if holds else f"{seen}, wanted: within {duration(settings.within)}")
        which = f"the newest point, {last.manifest.label}," if last is not None else "no point"
        never = "was never" if last is not None else "was ever"
        return Answer(False, f"{machine}: {which} {never} found good{ways}: `failback verify {machine}` looks")
