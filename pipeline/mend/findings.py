"""What a scrub found: damaged objects, whom they harm, and what is mended already; kept as records in the bucket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.errors import AccessDenied
from pipeline.mend.damage import Damage, clear_damage, record_damage
from pipeline.mend.harm import Harm, harms_of
from pipeline.mend.needs import Needs
from pipeline.mend.scrub import ScrubReport, unique
from pipeline.repository import Repository


@dataclass(slots=True)
class Findings:
    """`mended`: keys of damaged packs that no point needs for its content: their chunks are read from elsewhere, or no
    index refers to them any more, though pack lists still name them."""

    damages: list[Damage] = field(default_factory=list)
    harms: list[Harm] = field(default_factory=list)
    mended: set[str] = field(default_factory=set)
    unrecorded: str = ""
    """Why the damage could not be recorded in the bucket."""

    @property
    def open(self) -> list[Damage]:
        """Damages that are not mended."""
        return [damage for damage in self.damages if damage.key not in self.mended]


def find_harm(
    repository: Repository, report: ScrubReport, needs: Needs, *, tick: Callable[[], object] = lambda: None
) -> Findings:
    """Name whom the damage of a report harms, and leave word of it in the bucket."""
    findings = Findings(unique([*report.damages, *needs.damages]))
    findings.harms = harms_of(repository, findings.damages, needs.points, tick=tick)
    lost = {harm.key for harm in findings.harms if harm.ranges}
    if all(damage.key.startswith("packs/") for damage in findings.damages):
        # With indexes that could all be read it is known who refers to what.
        findings.mended = {damage.key for damage in findings.damages if damage.id in needs.packs} - lost
    else:
        findings.mended = {harm.key for harm in findings.harms if harm.relocated} - lost
    try:
        for damage in findings.damages:
            if damage.by_id:
                record_damage(repository, damage)
        clear_damage(repository, report.healthy)
    except AccessDenied as error:
        findings.unrecorded = error.message
    return findings
