"""Switch a machine on."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import BootError
from pipeline.home.site import Site
from pipeline.target import Build, Observation
from pipeline.wanted import Wanted

_LINES = 5


@dataclass(frozen=True, slots=True)
class Running:
    """A machine that is on. `fresh`: it was off before."""

    build: Build
    seen: Observation
    fresh: bool


def switch_on(site: Site, build: Build, wanted: Wanted) -> Running:
    """Raises BootError, which shows the end of the console, when the platform says that it does not run."""
    fresh = site.importer.observe(build).power != "on"
    build = site.importer.boot(build, wanted.networks)
    seen = site.importer.observe(build)
    if seen.power == "off":
        tail = "\n".join(f"    {line}" for line in seen.console.splitlines()[-_LINES:])
        raise BootError(
            f"{build.name} was switched on and is off again: {seen.reason or 'no reason is known'}",
            remedy=f"the end of its console:\n{tail}" if tail else "look at its firmware and disks in the mapping",
        )
    return Running(build, seen, fresh)
