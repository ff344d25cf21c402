"""Older versions that readers use in place of a damaged or deleted object, in buckets that keep versions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from manifests.envelope import object_id
from pipeline.errors import CorruptObject
from pipeline.mend.check import fits_place
from pipeline.mend.damage import Damage, Problem
from pipeline.mend.notes import NOTES
from pipeline.repository import Repository
from pipeline.store.base import Store
from pipeline.store.older import older

REMEDY = "an older version is whole: nothing is lost, and `failback repair` puts it back"


WITHOUT: tuple[Problem, ...] = ("content", "rewritten")
"""What no version mends: of bytes that match their name another has the same; of two points under one number somebody
has to choose."""


def stand_in(store: Store, key: str, *, accept: Callable[[bytes], bool] = lambda _data: True) -> bytes | None:
    """The version that is what the key says: of an object named by id the newest whose hash it is, of one named by its
    place the first whose checksum fits and that is to be accepted. None: there is none, or it could not be looked for.
    """
    if key.startswith(("packs/", "pages/")):
        wanted = bytes.fromhex(key[-64:])
        return older(store, key, lambda data: data if object_id(data) == wanted else None, CorruptObject(key))

    def whole(data: bytes) -> bytes | None:
        return data if fits_place(data, key) and accept(data) else None

    return older(store, key, whole, CorruptObject(key), oldest_first=True)


def stood_in(repository: Repository, *, besides: Collection[str] = ()) -> list[str]:
    """What readers of this repository noticed so far: objects they had to take from older versions."""
    return [f"{key} is damaged or was deleted; {REMEDY}" for key in sorted(repository.stood_in.difference(besides))]


def with_stand_ins(store: Store, damages: Iterable[Damage], *, parallel: int = 8) -> list[Damage]:
    """The same, saying of each whether an older version stands in for it. Reads the older versions of all."""

    def one(damage: Damage) -> Damage:
        if (
            damage.kept
            or damage.problem in WITHOUT
            or damage.key.startswith(tuple(NOTES))
            or stand_in(store, damage.key) is None
        ):
            return damage
        return replace(damage, kept=True, detail=f"{damage.detail}; {REMEDY}")

    if store.versions() is None:
        return list(damages)
    with ThreadPoolExecutor(parallel, "versions") as pool:
        return list(pool.map(one, damages))
