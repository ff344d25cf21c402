"""Where machines run now, by kind: entry points of the group `failback.sources`."""

from __future__ import annotations

from importlib.metadata import entry_points

from pipeline.errors import UsageError
from pipeline.source import Source, SourceContext

GROUP = "failback.sources"


def source_kinds() -> list[str]:
    """All that are installed."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def open_source(kind: str, context: SourceContext) -> Source:
    """The source of this kind. Raises UsageError when there is none or it cannot be loaded."""
    entries = {entry.value: entry for entry in entry_points(group=GROUP, name=kind)}
    if not entries:
        raise UsageError(f"a source of kind {kind} is unknown", remedy=f"known are: {', '.join(source_kinds())}")
    if len(entries) > 1:
        raise UsageError(
            f"several packages have a source {kind!r}: {', '.join(sorted(entries))}", remedy="uninstall all but one"
        )
    [entry] = entries.values()
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"the source {kind} ({entry.value}) cannot be loaded: {error}",
            remedy="install what it needs, or reinstall the package that brings it",
        ) from error
    source: Source = found(context)
    return source
