"""The disks at a place become a recovery point's."""

from __future__ import annotations

from pipeline.catalogue import Point
from pipeline.errors import TargetError
from pipeline.home.settle import holds
from pipeline.home.site import Site
from pipeline.target import Place, Stage
from pipeline.wanted import Wanted


def staged(site: Site, place: Place | None, point: Point, wanted: Wanted, *, instant: bool) -> Stage:
    """`place` is what `settled` gave. A machine that is built on the point already leaves nothing to do."""
    if place is not None and place.stage is not None:
        site.folder.change(whole=True)
        if place.build is not None and holds(place.stage, point):
            return place.stage
    place = site.importer.prepare(point, wanted, site.marker)
    stage = site.importer.stage(place, point, wanted, instant=instant)
    site.folder.change(whole=True)
    return stage


def there(site: Site) -> Place:
    """The place as the platform shows it after its disks were staged. Raises TargetError when it is gone."""
    place = site.find()
    if place is None:
        raise TargetError(f"{site.machine} is gone from {site.target}", remedy="somebody removed it; import it again")
    return place
