"""What a scrub found: damaged objects, whom they harm, and what is mended already; kept as records in the bucket."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.errors import AccessDenied, FormatError, KeyRefused, NotFound
from pipeline.mend.damage import Damage, clear_damage, record_damage
from pipeline.mend.harm import Harm, harms_of
from pipeline.mend.needs import Needs
from pipeline.mend.notes import NOTES
from pipeline.mend.scrub import ScrubReport, unique
from pipeline.mend.stand_in import with_stand_ins
from pipeline.repository import Repository
from pipeline.transfer.relocations import read_relocation


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
    findings = Findings(with_stand_ins(repository.store, unique([*report.damages, *needs.damages])))
    harmful = [damage for damage in findings.damages if not damage.kept]
    findings.harms = harms_of(repository, harmful, needs.points, tick=tick)
    lost = {harm.key for harm in findings.harms if harm.ranges}
    if all(damage.key.startswith(("packs/", *NOTES)) for damage in harmful):
        # With indexes that could all be read it is known who refers to what.
        findings.mended = {d.key for d in harmful if d.by_id and d.id in needs.packs} - lost
    else:
        findings.mended = {harm.key for harm in findings.harms if harm.relocated} - lost
    findings.mended |= _outlived(repository, harmful, needs, anything_lost=bool(lost))
    try:
        for damage in findings.damages:
            if damage.by_id:
                record_damage(repository, damage)
        clear_damage(repository, report.healthy)
    except (AccessDenied, KeyRefused) as error:
        findings.unrecorded = error.message
    return findings


def _outlived(repository: Repository, damages: list[Damage], needs: Needs, *, anything_lost: bool) -> set[str]:
    """Keys of damaged packs that only relocation records name, when nothing is lost without them."""
    mine = {d.id: d.key for d in damages if d.key.startswith("packs/") and d.id not in needs.packs}
    if not mine or anything_lost:
        return set()
    named: set[bytes] = set()
    for info in repository.store.list("relocations/"):
        with contextlib.suppress(FormatError, NotFound):
            named |= {moved.pack for _offset, moved in read_relocation(repository, info.key)}
    return {key for object_id, key in mine.items() if object_id in named}
