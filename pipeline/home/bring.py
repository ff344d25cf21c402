"""Bring a machine home: its disks equal the point, the machine is built on them and, if asked, runs and is verified."""

from __future__ import annotations

import hashlib

from pipeline.catalogue import Point
from pipeline.home.arrival import Arrival, Verify
from pipeline.home.boot import switch_on
from pipeline.home.ready import check_ready
from pipeline.home.settle import settled
from pipeline.home.site import Site
from pipeline.home.stage import staged, there
from pipeline.laps import Laps
from pipeline.target import Build, Intent, Place, Stage
from pipeline.wanted import Wanted

STOP_SECONDS = 60.0
"""How long a machine that failed its checks gets to shut down by itself."""


def bring_home(
    site: Site,
    point: Point,
    wanted: Wanted,
    *,
    boot: bool,
    instant: bool = False,
    verify: Verify | None = None,
    keep_running: bool = False,
    laps: Laps | None = None,
) -> Arrival:
    """For production. Goes on where an earlier call ended, whichever way that was: called twice, one machine.

    What `verify` does not find right is switched off again (its disks and layer stay), unless `keep_running`. Raises
    NotReady before anything is changed, TargetBusy when a machine of another point was switched on there, BootError
    when it does not start, and whatever the importer raises. `laps`: of the command, to go on with.
    """
    laps = laps or Laps()
    found = tuple(check_ready(site, point, wanted, Intent("production", boots=boot, instant=instant)))
    laps.lap("preflight")
    with site.held(f"import {point.manifest.label}"):
        stage, build = _built(site, point, wanted, laps, instant=instant)
        if not boot:
            return Arrival(stage, build, found, running=there(site).state == "running", steps=laps.steps)
        on = switch_on(site, build, wanted)
        laps.lap("boot")
        build, seen = on.build, on.seen
        verdict = verify(site.importer, build, on.fresh) if verify else None
        if verify:
            laps.lap("checks")
        running = keep_running or verdict is None or verdict.verified
        if not running:
            seen = site.importer.stop(build, seconds=STOP_SECONDS)
            laps.lap("stop")
        return Arrival(stage, build, found, verdict, running, seen, laps.steps)


def bring_disks(site: Site, point: Point, wanted: Wanted, laps: Laps | None = None) -> Arrival:
    """For targets without machines: the disks only, in a place that the target knows by itself."""
    laps = laps or Laps()
    found = tuple(check_ready(site, point, wanted, Intent("production", boots=False)))
    laps.lap("preflight")
    place = site.importer.prepare(point, wanted, site.marker)
    stage = site.importer.stage(place, point, wanted)
    laps.lap("stage", stage.steps)
    return Arrival(stage, findings=found, steps=laps.steps)


def _built(site: Site, point: Point, wanted: Wanted, laps: Laps, *, instant: bool) -> tuple[Stage, Build]:
    """The machine, built on the point, or as an earlier call built it."""
    digest = hashlib.sha256(repr(wanted).encode()).hexdigest()
    record = site.folder.record
    fresh = record is None or record.wanted != digest
    place = settled(site, point, reuse=True, fresh=fresh)
    laps.lap("find")
    if place is not None and place.build is not None and place.stage is not None and _started(place, place.build):
        return place.stage, place.build
    stage = staged(site, place, point, wanted, instant=instant)
    laps.lap("stage", stage.steps)
    site.folder.change(wanted=digest)
    build = site.importer.build(there(site), stage, wanted, "production")
    laps.lap("build")
    return stage, build


def _started(place: Place, build: Build) -> bool:
    return build.booted or place.state in ("running", "kept")
