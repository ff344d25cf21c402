"""Take away what dead commands left at their targets, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.collect.record import release
from pipeline.errors import FailbackError, PlaceHeld, TargetBusy
from pipeline.home.rehearse import throw_away
from pipeline.home.site import RUNS, Ground, Run, Site, open_site
from pipeline.target import Borrowing, Place

_HALF_MADE = ("prepared", "staging")


@dataclass(frozen=True, slots=True)
class Left:
    """One thing that was found. `action`: remove (all of the place), drop (a rehearsal on a stage that stays), give
    back (what was borrowed for a place that stays), held (by a command that is alive: nothing is done), failed (by
    `error`), or none."""

    name: str
    """`MACHINE/RUN`."""
    target: str
    action: str
    what: str
    error: FailbackError | None = None


def clean(
    ground: Ground,
    *,
    machine: str = "",
    target: str = "",
    everything: bool = False,
    kept_too: bool = False,
    dry_run: bool = False,
) -> Iterator[Left]:
    """What this host remembers of `machine` at `target` (empty: of all), and what was, or would be, taken away.

    A target that cannot be asked keeps nothing from being done at others, unless machine and target are named.

    With a machine and a target it is also looked for at the target when nothing is remembered. `everything` takes a
    machine's whole place away, disks and all. TargetBusy is raised when it runs for production, and, unless
    `kept_too`, when it came home for good: its disks are the only copy of what it wrote.
    """
    for which, where, run in _places(ground, machine, target):
        try:
            with open_site(ground, where, which, run) as site:
                if not site.abilities.machines:
                    continue
                left = _cleaned(site, everything=everything, kept_too=kept_too, dry_run=dry_run)
        except PlaceHeld as error:
            left = Left(f"{which}/{run}", where, "held", error.message)
        except FailbackError as error:
            if machine and target:
                raise
            left = Left(f"{which}/{run}", where, "failed", error.message, error)
        if left is not None:
            yield left


def _places(ground: Ground, machine: str, target: str) -> list[tuple[str, str, Run]]:
    mine = ground.repository.document.id
    records = [record for folder in ground.places.all() if (record := folder.record) and record.repository == mine]
    found = [
        (record.machine, record.target, run)
        for record in records
        for run in RUNS
        if record.run == run and machine in ("", record.machine) and target in ("", record.target)
    ]
    if machine and target:
        found += [(machine, target, run) for run in RUNS if (machine, target, run) not in found]
    return found


def _cleaned(site: Site, *, everything: bool, kept_too: bool, dry_run: bool) -> Left | None:
    """None: nothing is there, and nothing was remembered."""
    with site.folder.held("clean"):
        place = site.find()
        if place is None and site.folder.record is None:
            site.folder.forget()
            return None
        action, what = _judge(site, place, everything=everything, kept_too=kept_too)
        borrowing = site.importer if isinstance(site.importer, Borrowing) else None
        if action == "none" and borrowing is not None and (lent := borrowing.borrowed(site.marker)):
            action, what = "give back", f"{', '.join(lent)} for {what}"
        if not dry_run:
            if action == "drop":
                throw_away(site)
                site.folder.change(doing="")
            elif action == "give back" and borrowing is not None:
                borrowing.give_back(site.marker)
            elif action == "remove":
                site.importer.remove(site.marker)
                site.folder.forget()
                let_go(site)
        if site.folder.record is None:
            site.folder.forget()
        return Left(f"{site.machine}/{site.run}", site.target, action, what)


def holder_of(site: Site) -> str:
    """As whom a place holds the point on its disks."""
    return f"{site.target}-{site.marker.hex[:12]}"


def let_go(site: Site) -> None:
    """The place holds no point any more. Who may not delete that record leaves it: `failback release` takes it away."""
    try:
        release(site.ground.repository, site.machine, holder_of(site))
    except FailbackError as error:
        site.control.tell(f"{site.machine} is still held by {holder_of(site)}: {error.message}")


def _judge(site: Site, place: Place | None, *, everything: bool, kept_too: bool) -> tuple[str, str]:
    """What is to be done about a place that no command holds, and why."""
    record = site.folder.record
    doing = record.doing if record else ""
    if place is None:
        return "remove", "nothing is there" + f"; {doing} did not come to its end" * bool(doing)
    build, cause = place.build, f"left by {doing}" if doing else "left by a dead command"
    if site.run == "verify":
        return "remove", f"{_described(place)}, {cause}"
    if everything:
        if build is not None and build.purpose == "production" and place.state == "running":
            raise TargetBusy(
                f"{site.machine} runs at {site.target}",
                remedy=f"stop it first: `failback stop {site.machine} --to {site.target}`",
            )
        if place.state == "kept" and build is not None and build.booted and not kept_too:
            raise TargetBusy(
                f"{site.machine} came home to {site.target} for good: its disks are the only copy of what it wrote",
                remedy="export them first, or add --force to take it away all the same",
            )
        return "remove", _described(place)
    if build is not None and build.purpose == "rehearsal":
        return "drop", f"rehearsal on {_described(place)}, {cause}"
    if place.state in _HALF_MADE and not (record and record.whole):
        return "remove", f"{_described(place)}, {cause}"
    return "none", f"{_described(place)}: it stays"


def _described(place: Place) -> str:
    of = f" {place.stage.machine}@{place.stage.sequence}" if place.stage else ""
    return {
        "prepared": "an empty place",
        "staging": "half-made disks",
        "staged": f"disks of{of}",
        "layered": f"a machine that is off, on disks of{of}",
        "running": f"a machine that runs, on disks of{of}",
        "kept": "a machine that came home for good",
    }.get(place.state, place.state)
