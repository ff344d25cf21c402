"""Where machines run now, by kind: entry points of the group `failback.sources`."""

from __future__ import annotations

from pipeline.plugins import installed, load
from pipeline.source import Source, SourceContext

GROUP = "failback.sources"


def source_kinds() -> list[str]:
    """All that are installed."""
    return installed(GROUP)


def open_source(kind: str, context: SourceContext) -> Source:
    """The source of this kind. Raises UsageError when there is none or it cannot be loaded."""
    source: Source = load(GROUP, kind, what="a source", unknown=f"a source of kind {kind} is unknown")(context)
    return source
