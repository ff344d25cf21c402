"""Repair from a copy of the repository: the same bytes are put back under the same names."""

from __future__ import annotations

from collections.abc import Iterable

from manifests.manifest import decode_manifest
from pipeline.errors import FormatError, NotFound, WrongRepository
from pipeline.mend.check import check_by_name
from pipeline.mend.damage import Damage
from pipeline.repository import Repository


def check_same(repository: Repository, other: Repository) -> None:
    """Raises WrongRepository when `other` is not a copy of `repository`."""
    if other.id != repository.id:
        raise WrongRepository(
            f"{other.store.name} holds repository {other.document.id}, {repository.store.name} holds "
            f"{repository.document.id}: objects of one are of no use to the other",
            remedy="name a copy of this bucket; a machine's points come from another repository with `failback copy`",
        )


def put_back(repository: Repository, other: Repository, damages: Iterable[Damage]) -> list[Damage]:
    """Those of `damages` that are mended: the copy had the object, undamaged. Each is read again afterwards.

    Where a bucket keeps versions the damaged object stays as an older one.
    """
    mended = []
    for damage in damages:
        data = _whole(repository, other, damage)
        if data is None:
            continue
        repository.store.put(damage.key, data)
        if _whole(repository, repository, damage) is not None:
            mended.append(damage)
    return mended


def _whole(repository: Repository, where: Repository, damage: Damage) -> memoryview | None:
    """The object, when it is there and right."""
    if damage.by_id:
        problem, data = check_by_name(where.store, damage.key)
        return data if problem is None else None
    try:
        data = memoryview(where.store.get(damage.key))
        if damage.key.startswith("manifests/"):
            decode_manifest(data, sealing=repository.sealing, key=damage.key)
            return data
    except (FormatError, NotFound):
        pass
    return None
