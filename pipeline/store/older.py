"""What an object was before it was overwritten or deleted, in stores that keep versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pipeline.errors import FailbackError, NotFound, StoreError
from pipeline.store.base import Store

T = TypeVar("T")


def older(
    store: Store,
    key: str,
    accept: Callable[[bytes], T | None],
    error: FailbackError,
    *,
    oldest_first: bool = False,
) -> T | None:
    """What `accept` makes of the first version it takes; None when it takes none, or the store has no versions.

    Asked only after the newest was found wrong, which `error` says: it also says why no version could be looked at.
    """
    versions = store.versions()
    if versions is None:
        return None
    try:
        found = [version for version in versions.list_versions(key) if not version.marker]
        for version in reversed(found) if oldest_first else found:
            try:
                if (taken := accept(versions.get_version(version))) is not None:
                    return taken
            except NotFound:
                continue  # a collector was faster
    except StoreError as trouble:
        error.message += f" (older versions could not be looked at: {trouble.message})"
        error.remedy = trouble.remedy or error.remedy
    return None
