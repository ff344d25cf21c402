"""Change maps: what a source knows of its changes since a point, and when that may be trusted."""

from __future__ import annotations

from manifests.manifest import Disk
from pipeline.exporters.base import Exporter
from pipeline.transfer.export_request import DiskSource

CHANGE_MAP_PREFIX = "failback"
"""Change maps are used by themselves only when their name begins so: whoever names one so promises that a name is
never used twice. A map that was cleared and filled again would hide changes, and nothing could tell."""


def changed_extents(source: DiskSource, parent: Disk, sequence: int) -> tuple[list[tuple[int, int]] | None, str]:
    """What changed since `parent` (of point `sequence`), None when that is not known for sure; and why, for people."""
    changes = source.changes
    if changes is not None:
        if changes.since != sequence:
            return None, f"the given changes begin at point {changes.since}, so every block is compared"
        return list(changes.extents), "reading only the given changes"
    if source.use_change_maps:
        offered = source.exporter.change_maps()
        for name in parent.change_maps:
            if name in offered:
                return list(source.exporter.changed_extents(name)), f"reading only what bitmap {name} marks"
        unused = [_why_unused(name, sequence) for name in offered]
        unused += [f"bitmap {n} is not used, {why}" for n, why in source.exporter.broken_change_maps().items()]
        return None, "; ".join(unused)
    return None, ""


def _why_unused(name: str, sequence: int) -> str:
    if not name.startswith(CHANGE_MAP_PREFIX):
        return f"bitmap {name} is not used, its name does not begin with {CHANGE_MAP_PREFIX}"
    return f"bitmap {name} is not used, it was not there and empty at point {sequence}"


def empty_maps(exporter: Exporter) -> set[str]:
    """Change maps of ours with nothing in them. Empty before and after the disk was read, a map begins here."""
    return {
        name
        for name in exporter.change_maps()
        if name.startswith(CHANGE_MAP_PREFIX) and next(iter(exporter.changed_extents(name)), None) is None
    }
