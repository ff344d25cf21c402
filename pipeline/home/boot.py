"""Switch a machine on."""

from __future__ import annotations

from pipeline.errors import BootError
from pipeline.home.site import Site
from pipeline.target import Build, Observation
from pipeline.wanted import Wanted

_LINES = 5


def switch_on(site: Site, build: Build, wanted: Wanted) -> tuple[Build, Observation]:
    """Raises BootError, which shows the end of the console, when the platform says that it does not run."""
    build = site.importer.boot(build, wanted.networks)
    seen = site.importer.observe(build)
    if seen.power == "off":
        tail = "\n".join(f"    {line}" for line in seen.console.splitlines()[-_LINES:])
        raise BootError(
            f"{build.name} was switched on and is off again: {seen.reason or 'no reason is known'}",
            remedy=f"the end of its console:\n{tail}" if tail else "look at its firmware and disks in the mapping",
        )
    return build, seen
