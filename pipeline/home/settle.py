"""Before a machine's disks are staged or built on: what an earlier command left at its place."""

from __future__ import annotations

from pipeline.catalogue import Point
from pipeline.errors import TargetBusy
from pipeline.home.site import Site
from pipeline.target import Build, Place, Stage


def holds(stage: Stage | None, point: Point) -> bool:
    """Whether the stage is of this point."""
    manifest = point.manifest
    return stage is not None and (stage.machine, stage.sequence) == (manifest.machine.name, manifest.sequence)


def drop(site: Site, place: Place, build: Build) -> Stage:
    """Machine and layer are gone, whatever it did; the stage is as it was."""
    if place.state == "running":
        site.importer.stop(build, seconds=0)
    return site.importer.finish(place, build, keep=False)


def is_there(site: Site, point: Point, *, reuse: bool) -> bool:
    """Whether `settled` would give a machine for production on this point that was switched on: nothing moves then.
    Changes nothing. Raises TargetBusy where `settled` would."""
    place = site.find()
    if place is None or place.build is None or place.build.purpose == "rehearsal" or not _was_started(place):
        return False
    if reuse and holds(place.stage, point):
        return True
    raise _lives(site, place)


def settled(site: Site, point: Point, *, reuse: bool, fresh: bool = False) -> Place | None:
    """The place, with nothing in the way of staging `point`; with `reuse` it may have a machine for production on
    exactly that point, which was switched on before or needs not be built afresh.

    Thrown away are: a rehearsal that a dead command left, and a machine that was never switched on and is of no use,
    because it is to be another one or somebody wrote to the disks below it. One that was switched on may hold what its
    users wrote: raises TargetBusy.
    """
    place = site.find()
    if place is None or place.build is None:
        return place
    build, started = place.build, _was_started(place)
    if build.purpose == "rehearsal":
        site.control.tell(f"an earlier rehearsal of {site.machine} was cut short; it is thrown away")
    elif reuse and holds(place.stage, point) and started:
        _warn_of_changes(site, place)
        return place
    elif reuse and holds(place.stage, point) and not (fresh or _touched(site, place.stage)):
        return place
    elif started:
        raise _lives(site, place)
    drop(site, place, build)
    return site.find()


def _touched(site: Site, stage: Stage | None) -> bool:
    """Whether the disks must be hashed again before a machine is started on them."""
    reason = site.importer.check(stage) if stage is not None else ""
    if reason:
        site.control.tell(f"{site.machine} is built afresh: {reason}")
    return bool(reason)


def _warn_of_changes(site: Site, place: Place) -> None:
    """What the machine wrote lies over the stage and stays: it is not for us to throw it away, or to keep it off."""
    reason = site.importer.check(place.stage) if place.stage is not None and place.state == "layered" else ""
    if reason:
        site.control.tell(
            f"{site.machine} is started on what it wrote at home over disks that are not as they were staged: {reason}"
        )


def _was_started(place: Place) -> bool:
    return place.state in ("running", "kept") or (place.build is not None and place.build.booted)


def _lives(site: Site, place: Place) -> TargetBusy:
    held = f" from {place.stage.machine}@{place.stage.sequence}" if place.stage else ""
    if place.state == "kept":
        remedy = f"`failback clean {site.machine} --to {site.target} --all --force` takes it away with its disks"
    else:
        remedy = f"`failback stop {site.machine} --to {site.target} --drop` throws away what it wrote since"
    return TargetBusy(
        f"{site.machine} was started at {site.target}{held} and may hold newer data than the repository", remedy=remedy
    )
