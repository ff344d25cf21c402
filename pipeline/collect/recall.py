"""Bringing a forgotten point back: its manifest is committed again, under the next number."""

from __future__ import annotations

from importlib.metadata import version

from manifests.manifest import Manifest
from manifests.names import session_prefix, tombstone_key
from pipeline.catalogue import Point, load, sequences
from pipeline.catalogue import forgotten as forgotten_points
from pipeline.collect.collector import RECALL
from pipeline.errors import CatalogueError
from pipeline.repository import Repository
from pipeline.transfer.commit import commit
from pipeline.transfer.session import Session

MARGIN = 600.0
"""Seconds before a tombstone begins to count, in which nothing is brought back any more."""


def recall(repository: Repository, machine: str, sequence: int) -> Manifest:
    """The new point. Raises CatalogueError when the point is not forgotten, or was for too long."""
    if repository.store.head(tombstone_key(machine, sequence)) is None:
        raise CatalogueError(
            f"{machine}@{sequence} is not forgotten", remedy=f"`failback list {machine}` shows the points of {machine}"
        )
    point = load(repository, machine, sequence)
    if point is None:
        raise CatalogueError(f"{machine}@{sequence} is void", remedy="there never was anything to bring back")
    taken = [*sequences(repository, machine), *forgotten_points(repository, machine)]
    named = [{"point": point.manifest.label, "manifest": point.object_hash}]
    tool = f"failback {version('failback')}"
    session, _ = Session.begin(repository, machine, max(taken) + 1, parent=None, bases=named, disks=[], tool=tool)
    outcome = "failed"
    try:
        session.check_free()
        # Only now, when every collector that begins sees the session.
        _check_young(repository, point, session.run)
        again = point.manifest.model_copy(
            update={"sequence": max(taken) + 1, "parent": None, "run": session.run, "tool": tool}
        )
        # A point is of one generation of keys: an export must not take this for one that the newest keys sealed.
        commit(repository, again, generation=point.generation)
        outcome = "committed"
        return again
    finally:
        session.end(outcome)


def _check_young(repository: Repository, point: Point, run: str) -> None:
    machine, sequence = point.manifest.machine.name, point.manifest.sequence
    made = repository.store.head(tombstone_key(machine, sequence))
    began = repository.store.head(f"{session_prefix(machine, run)}session")
    age = (began.modified - made.modified).total_seconds() if made and began else float("inf")
    if age > RECALL.total_seconds() - MARGIN:
        raise CatalogueError(
            f"{point.manifest.label} was forgotten too long ago: a collection may be taking what it needs",
            remedy=f"points come back within {RECALL} only; nothing was changed",
        )
