"""Is a point's manifest the one that was committed? Whoever has the keys of its machine can sign another one.

What remembers the first one: points that were built on it, notes that it was found good (an exporter may not write
them), and older versions in a bucket that keeps them. A host's own memory is `pipeline.keys.known`.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

from manifests.names import manifest_key
from pipeline.catalogue import Point, forgotten, load, mismatch, sequences
from pipeline.collect.history import History
from pipeline.collect.points import first_differs
from pipeline.collect.record import verified_manifests
from pipeline.errors import AccessDenied, CatalogueError, Forged, FormatError
from pipeline.repository import Repository

_FOLLOWING = 4
"""Points behind it that are looked at for one that was built on it."""


def check_lineage(repository: Repository, point: Point) -> list[str]:
    """What says that it is another one. What may not be read, or is damaged itself, says nothing."""
    return [*_relatives(repository, point), *_notes(repository, point), *_versions(repository, point)]


def _relatives(repository: Repository, point: Point) -> list[str]:
    machine, sequence = point.manifest.machine.name, point.manifest.sequence
    after = sequences(repository, machine, after=sequence)
    gone = forgotten(repository, machine)
    near = [point.manifest.parent.sequence] if point.manifest.parent else []
    near += islice((number for number in after if number not in gone), _FOLLOWING)
    found = [point]
    texts = []
    hashes = {}
    for number in near:
        if number not in gone:
            try:
                other = load(repository, machine, number)
                found += [other] if other is not None else []
                hashes[number] = other.object_hash if other is not None else ""
            except Forged as error:
                texts.append(error.message)
            except (CatalogueError, FormatError):
                continue
    hashes[sequence] = point.object_hash
    return texts + [text for child in found if (text := mismatch(child, hashes))]


def _notes(repository: Repository, point: Point) -> list[str]:
    label = point.manifest.label
    with suppress(AccessDenied, FormatError):
        for how, manifest in verified_manifests(repository, point).items():
            if manifest != point.object_hash:
                return [f"{label} is not the manifest that was noted as good ({how}): it was overwritten since"]
    return []


def _versions(repository: Repository, point: Point) -> list[str]:
    versions = repository.store.versions()
    if versions is None or not repository.document.abilities.get("versioning") or not repository.conditional_put:
        return []
    key = manifest_key(point.manifest.machine.name, point.manifest.sequence)
    with suppress(AccessDenied):
        history = History(versions.list_versions(key))
        if history.contents and first_differs(versions, history):
            return [f"{key} is not what was written there at first: it was overwritten"]
    return []
