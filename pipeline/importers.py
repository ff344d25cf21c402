"""Target platforms, by name: entry points of the group `failback.importers`."""

from __future__ import annotations

from pipeline.plugins import installed, load
from pipeline.target import Context, Importer

GROUP = "failback.importers"


def importer_names() -> list[str]:
    """All that are installed."""
    return installed(GROUP)


def open_importer(target: str, context: Context) -> Importer:
    """The importer for `target`. Raises UsageError when there is none or it cannot be loaded."""
    importer: Importer = load(GROUP, target, what="an importer", unknown=f"--to {target} is unknown")(context)
    return importer
