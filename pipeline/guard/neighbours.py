"""Other repositories in the same bucket: side by side they are no trouble, one inside another they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

from manifests.repository import KEY, RepositoryDocument
from pipeline.errors import AccessDenied, FailbackError, NotFound, UsageError
from pipeline.store.address import Address, DirectoryAddress, S3Address
from pipeline.store.base import Store

FOLDERS = 200
"""So many folders below a new repository's prefix are looked into: it should be empty."""
KEYS = 50
"""Keys of a folder that are looked at before the next one."""


def refuse_nested(address: Address, store: Store, open_store: Callable[[Address], Store]) -> None:
    """Raises UsageError when a repository lies above or below the place of a new one.

    A janitor of the outer one could not tell what belongs to whom, and a role's rights would cover both. Places above
    that may not be read are passed over.
    """
    for above in _above(address):
        outer = open_store(above)
        try:
            if _is_repository(outer, KEY):
                raise _nested(store.name, outer.name)
        except AccessDenied:
            continue
        finally:
            outer.close()
    if inner := _below(store):
        raise _nested(store.name, f"{store.name}/{inner}")


def _above(address: Address) -> list[Address]:
    match address:
        case S3Address():
            parts = address.prefix.rstrip("/").split("/") if address.prefix else []
            prefixes = ["".join(f"{part}/" for part in parts[:end]) for end in range(len(parts))]
            return [replace(address, prefix=prefix) for prefix in prefixes]
        case DirectoryAddress(path):
            return [DirectoryAddress(parent) for parent in Path(path).parents if (parent / KEY).is_file()]
        case _:
            return []


def _below(store: Store) -> str:
    """The folder of a repository below the prefix, or nothing. One listing a folder: each goes on behind it."""
    after = ""
    seen: set[str] = set()
    for _ in range(FOLDERS):
        info = None
        for info in islice(store.list("", after=after), KEYS):
            parts = info.key.split("/")[:-1]
            for end in range(1, len(parts) + 1):
                folder = "/".join(parts[:end])
                if folder not in seen and _is_repository(store, f"{folder}/{KEY}"):
                    return folder
                seen.add(folder)
        if info is None:
            return ""
        after = info.key.rpartition("/")[0] + "/~" if "/" in info.key else info.key
    return ""


def _is_repository(store: Store, key: str) -> bool:
    try:
        RepositoryDocument.decode(bytes(store.get(key)))
    except NotFound:
        return False
    except AccessDenied:
        raise
    except FailbackError:
        return False  # a file of that name that is not ours
    return True


def _nested(place: str, other: str) -> UsageError:
    return UsageError(
        f"{place} and the repository at {other} would lie one inside the other",
        remedy="choose a prefix beside it",
    )
