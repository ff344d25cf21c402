"""Keys of a source's journal, and what they mean: what a verb began and what it ended.

They say what was done, not what is. Where a platform shows how things are, it is asked.
"""

from __future__ import annotations

from pipeline.target import Journal

TOUCHED = "source-touched"
"""A verb that takes the machine from its work has begun: `resume` has something to do."""
QUIESCED = "source-quiesced"
LOCKED = "source-locked"


def noted(journal: Journal, key: str) -> bool:
    return bool(journal.get(key))


def note(journal: Journal, key: str, value: bool) -> None:
    """Durable when it returns; nothing is written when it is so already."""
    if noted(journal, key) != value:
        journal.note(key, "yes" if value else "")
