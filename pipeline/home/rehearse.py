"""Try a machine out: on a layer that is thrown away, cut off from every network."""

from __future__ import annotations

from pipeline.catalogue import Point
from pipeline.errors import BootError, PlaceHeld
from pipeline.finding import Finding
from pipeline.home.arrival import Arrival, Verdict, Verify
from pipeline.home.boot import switch_on
from pipeline.home.ready import check_ready
from pipeline.home.settle import drop, holds, settled
from pipeline.home.site import Ground, Site, open_site
from pipeline.home.stage import staged, there
from pipeline.laps import Laps
from pipeline.target import Intent
from pipeline.wanted import Wanted


def rehearse(
    site: Site,
    point: Point,
    wanted: Wanted,
    *,
    instant: bool = False,
    verify: Verify | None = None,
    laps: Laps | None = None,
) -> Arrival:
    """Stage the point at this place and try it out. The stage stays, and so does the chain of refreshes.

    Nothing is left running, whatever ends it. Raises NotReady before anything is changed, TargetBusy when a machine
    for production was switched on there, BootError, and whatever the importer raises. `laps`: of the command, to go on
    with.
    """
    apart = wanted.rehearsal()
    laps = laps or Laps()
    found = tuple(check_ready(site, point, apart, Intent("rehearsal", boots=True, instant=instant)))
    laps.lap("preflight")
    with site.held(f"rehearsal of {point.manifest.label}"):
        return _tried(site, point, apart, found, laps, instant=instant, verify=verify)


def try_out(
    ground: Ground, target: str, point: Point, wanted: Wanted, *, instant: bool = False, verify: Verify | None = None
) -> Arrival:
    """Rehearse without touching the machine at home: on its stage when that holds exactly this point and nothing is
    built on it, else in a place that is removed when all is known. Raises like `rehearse`; a place that was being
    staged when it was cut short stays, so that the same call goes on.
    """
    machine = point.manifest.machine.name
    with open_site(ground, target, machine, "import") as home:
        place = home.find()
        if place is not None and place.state == "staged" and place.stage is not None and holds(place.stage, point):
            try:
                return rehearse(home, point, wanted, instant=instant, verify=verify)
            except PlaceHeld:
                pass  # another command is about to do something there
    apart = wanted.rehearsal()
    with open_site(ground, target, machine, "verify") as site:
        laps = Laps()
        found = tuple(check_ready(site, point, apart, Intent("rehearsal", boots=True, instant=instant)))
        laps.lap("preflight")
        with site.held(f"verification of {point.manifest.label}"):
            try:
                arrival = _tried(site, point, apart, found, laps, instant=instant, verify=verify)
            except BootError:
                _remove(site)
                raise
            _remove(site)
            return arrival


def throw_away(site: Site) -> None:
    """End a rehearsal, however far it came; a machine for production is left alone."""
    with site.control.shielded():
        place = site.find()
        if place is not None and place.build is not None and place.build.purpose == "rehearsal":
            drop(site, place, place.build)


def _tried(
    site: Site,
    point: Point,
    apart: Wanted,
    found: tuple[Finding, ...],
    laps: Laps,
    *,
    instant: bool,
    verify: Verify | None,
) -> Arrival:
    place = settled(site, point, reuse=False)
    laps.lap("find")
    stage = staged(site, place, point, apart, instant=instant)
    laps.lap("stage", stage.steps)
    verdict: Verdict | None = None
    try:
        build = site.importer.build(there(site), stage, apart, "rehearsal")
        laps.lap("build")
        on = switch_on(site, build, apart)
        laps.lap("boot")
        if verify:
            verdict = verify(site.importer, on.build, on.fresh)
            laps.lap("checks")
    finally:
        throw_away(site)
    laps.lap("drop")
    return Arrival(stage, None, found, verdict, False, on.seen, laps.steps)


def _remove(site: Site) -> None:
    with site.control.shielded():
        site.importer.remove(site.marker)
        site.folder.forget()
