"""`space`: there is room on this host, in the state folder or where disks go."""

from __future__ import annotations

import shutil
from pathlib import Path

from manifests.machine import Model
from pipeline.mapping import Size
from pipeline.plans.condition import Answer, Look, World
from pipeline.units import size


class SpaceSettings(Model):
    free: Size
    """At least so much."""
    path: Path | None = None
    """A folder or file of the file system that is meant; without it the state folder. Room on platforms elsewhere is
    looked at by `target`."""


class SpaceLook(Look[SpaceSettings]):
    Settings = SpaceSettings

    def look(self, world: World) -> Answer:
        path = self.settings.path or world.state
        there = path
        while not there.exists() and there != there.parent:
            if self.settings.path is not None:
                return Answer(False, f"{path} is not there")
            there = there.parent  # the state folder is made when it is needed
        try:
            free = shutil.disk_usage(there).free
        except OSError as error:
            return Answer(False, f"{path}: {error.strerror}")
        seen = f"{path}: {size(free)} free"
        wanted = self.settings.free
        return Answer(free >= wanted, seen if free >= wanted else f"{seen}, wanted: {size(wanted)}")
