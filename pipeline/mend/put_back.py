"""Repair from a copy of the repository, or from older versions: the same bytes are put back under the same names."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from blake3 import blake3

from manifests.manifest import decode_manifest
from manifests.names import decode_machine
from manifests.sealing import Buffer
from pipeline.catalogue import sequence_of
from pipeline.errors import FormatError, KeyRefused, NotFound, WrongRepository
from pipeline.mend.check import check_by_name, fits_place
from pipeline.mend.damage import Damage
from pipeline.mend.stand_in import WITHOUT, stand_in
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
        data = None if damage.problem == "rewritten" else _whole(repository, other, damage)
        if data is None:
            continue
        repository.store.put(damage.key, data)
        if _whole(repository, repository, damage) is not None:
            mended.append(damage)
    return mended


def put_back_versions(repository: Repository, damages: Iterable[Damage]) -> list[Damage]:
    """Those of `damages` that are mended: an older version was whole, and is the newest again. Each is read again."""
    mended = []
    for damage in damages:
        if damage.problem in WITHOUT:
            continue
        accept = partial(_readable, repository, damage.key)
        data = stand_in(repository.store, damage.key, accept=accept)
        if data is not None:
            repository.store.put(damage.key, data)
            _note(repository, damage.key, data)
            if _whole(repository, repository, damage) is not None:
                mended.append(damage)
    return mended


def _note(repository: Repository, key: str, data: bytes) -> None:
    """This host may have seen only what is not there any more."""
    if repository.seen is not None and key.startswith("manifests/"):
        repository.seen.note_point(decode_machine(key.split("/")[1]), sequence_of(key), blake3(data).hexdigest())


def _whole(repository: Repository, where: Repository, damage: Damage) -> memoryview | None:
    """The object, when it is there and right."""
    if damage.by_id:
        problem, data = check_by_name(where.store, damage.key)
        return data if problem is None else None
    try:
        data = memoryview(where.store.get(damage.key))
    except (FormatError, NotFound):
        return None
    return data if fits_place(data, damage.key) and _readable(repository, damage.key, data) else None


def _readable(repository: Repository, key: str, data: Buffer) -> bool:
    """Whether a manifest is signed by someone who may; of other objects the checksum has to do."""
    if not key.startswith("manifests/"):
        return True
    try:
        decode_manifest(memoryview(data), sealing=repository.sealing, key=key)
    except (FormatError, KeyRefused):
        return False
    return True
