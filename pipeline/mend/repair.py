"""Repair: what is damaged is put back from a copy, or stored again from wherever its content still is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from manifests.entry import PackTable, empty_rows
from manifests.names import pack_key, relocations_prefix
from pipeline.mend.check import check_by_name
from pipeline.mend.damage import Damage, clear_damage, damaged_ids, recorded_damage
from pipeline.mend.findings import Findings, find_harm
from pipeline.mend.listing import scrub_listing
from pipeline.mend.needs import Needs, needs_of_all
from pipeline.mend.put_back import check_same, put_back, put_back_versions
from pipeline.mend.relocate import Relocations, SurvivingDisk, relocate
from pipeline.mend.scrub import ScrubReport, check_places, unique
from pipeline.mend.wanted import wanted_of
from pipeline.repository import Repository
from pipeline.transfer.relocations import write_relocation


@dataclass(slots=True)
class Repaired:
    """What a repair did, and what is left."""

    put_back: list[Damage] = field(default_factory=list)
    from_versions: list[Damage] = field(default_factory=list)
    """Put back from older versions in the same bucket."""
    relocations: Relocations = field(default_factory=Relocations)
    left: Findings = field(default_factory=Findings)


def repair(
    repository: Repository,
    *,
    copy: Repository | None = None,
    survivors: list[SurvivingDisk] | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Repaired:
    """Mend all damage that scrubs recorded or a listing finds.

    What has a whole older version in its own bucket gets that back. From `copy`, another place with the same
    repository, objects come back as they were. Then chunks of packs that are still damaged are looked for in the packs
    themselves, in what other points hold, and on surviving disks.
    Raises WrongRepository before anything is changed. Killed, the same call goes on.
    """
    repaired = Repaired()
    if copy is not None:
        check_same(repository, copy)
    needs, damages = known_damage(repository, tick)
    if damages and repository.store.versions() is not None:
        repaired.from_versions = put_back_versions(repository, damages)
        clear_damage(repository, [damage.id for damage in repaired.from_versions if damage.by_id])
        if repaired.from_versions:
            needs, damages = known_damage(repository, tick)
    if copy is not None and damages:
        repaired.put_back = put_back(repository, copy, damages)
        clear_damage(repository, [damage.id for damage in repaired.put_back if damage.by_id])
        if repaired.put_back:
            # What came back may name objects that nobody missed before: a page directory its pages, a manifest all.
            needs, damages = known_damage(repository, tick)
            again = put_back(repository, copy, damages)
            clear_damage(repository, [damage.id for damage in again if damage.by_id])
            repaired.put_back += again
            if again:
                needs, damages = known_damage(repository, tick)
    bad = {damage.id for damage in damages if damage.key.startswith("packs/")}
    if bad:
        wanted = wanted_of(repository, bad, needs.points, tick=tick)
        if not any(damage.key.startswith(("pages/", "manifests/")) for damage in damages):
            # With indexes that could all be read it is known who refers to what.
            _tell_collectors(repository, {p for p in bad - wanted.packs.keys() if p in needs.packs})
        repaired.relocations = relocate(repository, wanted, survivors or [], tick=tick)
    needs.damages = []
    repaired.left = find_harm(repository, ScrubReport(damages=damages), needs, tick=tick)
    return repaired


def known_damage(repository: Repository, tick: Callable[[], object]) -> tuple[Needs, list[Damage]]:
    """What points need, and all that is known to be damaged of it and still is: recorded objects are read again."""
    repository.stood_in.clear()
    needs = needs_of_all(repository, tick=tick)
    report = scrub_listing(repository.store, needs, suspects=damaged_ids(repository))
    gone = set(report.healthy)
    damages = unique([*report.damages, *check_places(repository.store), *needs.damages])
    known = {damage.key for damage in damages}
    for damage in recorded_damage(repository):
        if damage.key in known or (damage.id in gone and _absent(repository, damage)):
            continue
        problem, data = check_by_name(repository.store, damage.key)
        if problem is not None:
            damages.append(problem)
        elif data is not None and damage.problem == "content":
            damages.append(damage)
        else:
            clear_damage(repository, [damage.id])
        tick()
    return needs, damages


def _absent(repository: Repository, damage: Damage) -> bool:
    if repository.store.head(damage.key) is not None:
        return False
    clear_damage(repository, [damage.id])
    return True


def _tell_collectors(repository: Repository, unused: set[bytes]) -> None:
    """Lists still name these packs, nothing refers to them: for those that are gone an empty record says that this is
    known."""
    for pack in sorted(unused):
        gone = repository.store.head(pack_key(pack)) is None
        if gone and next(iter(repository.store.list(relocations_prefix(pack))), None) is None:
            write_relocation(repository, pack, [], empty_rows(0), PackTable())
