"""`--tag KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.errors import UsageError


def parse_tags(given: Iterable[str]) -> dict[str, str]:
    """Raises UsageError for what is no pair, or a key that is given twice."""
    tags: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--tag {text} is not KEY=VALUE", remedy="write, for instance, --tag job=nightly")
        if key in tags:
            raise UsageError(f"--tag {key} is given twice", remedy="a key has one value")
        tags[key] = value
    return tags
