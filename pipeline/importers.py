"""Target platforms, by name: entry points of the group `failback.importers`."""

from __future__ import annotations

from importlib.metadata import entry_points

from pipeline.errors import UsageError
from pipeline.target import Context, Importer

GROUP = "failback.importers"


def importer_names() -> list[str]:
    """All that are installed."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def open_importer(target: str, context: Context) -> Importer:
    """The importer for `target`. Raises UsageError when there is none or it cannot be loaded."""
    entries = {entry.value: entry for entry in entry_points(group=GROUP, name=target)}
    if not entries:
        raise UsageError(f"--to {target} is unknown", remedy=f"known are: {', '.join(importer_names())}")
    if len(entries) > 1:
        raise UsageError(
            f"several packages have an importer {target!r}: {', '.join(sorted(entries))}",
            remedy="uninstall all but one",
        )
    [entry] = entries.values()
    try:
        kind = entry.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"the importer {target} ({entry.value}) cannot be loaded: {error}",
            remedy="install what it needs, or reinstall the package that brings it",
        ) from error
    importer: Importer = kind(context)
    return importer
