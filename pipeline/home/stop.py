"""Switch a machine at the target off, and decide about what it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import CatalogueError, Unsupported
from pipeline.home.site import Site
from pipeline.target import Observation, Place, Stage

Layer = Literal["leave", "keep", "drop"]


@dataclass(frozen=True, slots=True)
class Stopped:
    """`was_running`: it was on. `stage`: what is left after keep or drop."""

    was_running: bool
    seen: Observation
    stage: Stage | None = None


def stop_machine(site: Site, *, seconds: float, layer: Layer) -> Stopped:
    """Gracefully for `seconds`, then hard. Then `keep` merges what it wrote into its disks for good, `drop` throws it
    away. Raises CatalogueError when there is no machine, Unsupported when the platform cannot."""
    if site.folder.record is None and not _has_machine(site.find()):
        raise _no_machine(site)  # and nothing is remembered of having asked
    with site.held(f"stop {site.machine}"):
        place = site.find()
        if place is None or place.build is None:
            raise _no_machine(site)
        running = place.state == "running"
        if running and site.abilities.power != "api":
            raise Unsupported(f"{site.target} cannot switch machines off", remedy="shut it down from inside")
        seen = site.importer.stop(place.build, seconds=seconds) if running else site.importer.observe(place.build)
        place = site.find()
        if layer == "leave" or place is None or place.build is None:
            return Stopped(running, seen)
        if place.state == "kept":
            if layer == "drop":
                raise Unsupported(
                    f"{site.machine} runs on its disks themselves: there is no layer to throw away",
                    remedy="only all of it can be taken away: "
                    f"`failback clean {site.machine} --to {site.target} --all --force`",
                )
            return Stopped(running, seen, place.stage)
        return Stopped(running, seen, site.importer.finish(place, place.build, keep=layer == "keep"))


def _has_machine(place: Place | None) -> bool:
    return place is not None and place.build is not None


def _no_machine(site: Site) -> CatalogueError:
    return CatalogueError(
        f"there is no machine {site.machine} at {site.target}",
        remedy=f"`failback import {site.machine} --to {site.target}` brings it there",
    )
