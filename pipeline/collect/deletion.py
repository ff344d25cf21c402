"""Deleting what a collection found: by key, or in a bucket that keeps versions by version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.collect.history import Erased, erase, histories, histories_of
from pipeline.store.base import Store, Versions

NOTES = ("sessions/", "gc/", "holds/", "verified/", "scrub/")
"""What is written over again and again: older versions of it are of no use to anybody after the grace."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """Keys to delete, by the place they begin with and in order; and places of which everything goes."""

    keys: dict[str, Iterable[str]]
    places: list[str]


def delete_objects(store: Store, doomed: Doomed) -> None:
    """What is newest at each key. A bucket that keeps versions hides it only."""
    for keys in doomed.keys.values():
        store.delete_many(keys)
    for place in doomed.places:
        store.delete_many([info.key for info in store.list(place)])


def delete_versions(versions: Versions, doomed: Doomed, erased: Erased, *, before: float) -> None:
    """All versions, but those that a lock keeps; and of `NOTES` what was replaced before that time."""
    for prefix, keys in doomed.keys.items():
        erase(versions, (history.versions for history in histories_of(versions, prefix, keys)), erased)
    for place in doomed.places:
        erase(versions, (history.versions for history in histories(versions, place)), erased)
    for place in NOTES:
        erase(versions, (history.replaced(before) for history in histories(versions, place)), erased)
