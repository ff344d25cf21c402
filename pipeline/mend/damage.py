"""Damage: what is wrong with a stored object, and the record of it in the bucket (FORMAT.md, section 14)."""

from __future__ import annotations

import contextlib
import getpass
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast, get_args

from manifests.envelope import Kind
from manifests.manifest import decode_record, encode_record
from manifests.names import DAMAGE_PREFIX, damage_key
from pipeline.catalogue import now
from pipeline.errors import AlreadyExists, FormatError, NotFound
from pipeline.repository import Repository

Problem = Literal["missing", "size", "bytes", "content", "overwritten", "rewritten"]
"""Not there; not as long as its points say; its bytes do not match its name; a chunk in it is not what it should be; of
a manifest: something else than was written there at first, or after that was deleted."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Of the object at `key`."""

    key: str
    problem: Problem
    detail: str
    kept: bool = False
    """An older version is whole, and readers use it."""

    @property
    def id(self) -> bytes:
        """Of an object named by id."""
        return bytes.fromhex(self.key[-64:])

    @property
    def by_id(self) -> bool:
        """Whether the object is a pack or an index object."""
        return self.key.startswith(("packs/", "pages/"))


def by_whom() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def record_damage(repository: Repository, damage: Damage) -> None:
    """Leave word of it in the bucket, for exports and repairs."""
    key = damage_key(damage.id)
    record = {"key": damage.key, "problem": damage.problem, "detail": damage.detail, "time": now(), "by": by_whom()}
    data = encode_record(Kind.SCRUB, record, sealing=repository.sealing, key=key)
    with contextlib.suppress(AlreadyExists):
        repository.store.put(key, data, create=repository.conditional_put)


def damaged_ids(repository: Repository) -> set[bytes]:
    """Ids of packs and index objects that have a damage record: one listing."""
    found = set()
    for info in repository.store.list(DAMAGE_PREFIX):
        with contextlib.suppress(ValueError):
            found.add(bytes.fromhex(info.key.removeprefix(DAMAGE_PREFIX)))
    return found


def recorded_damage(repository: Repository) -> list[Damage]:
    """What the records say, one request each. A record that is damaged itself is left out: a scrub writes it anew."""
    found = []
    for object_id in sorted(damaged_ids(repository)):
        key = damage_key(object_id)
        try:
            data = repository.store.get(key)
            record = decode_record(memoryview(data), Kind.SCRUB, sealing=repository.sealing, key=key)
            problem = record["problem"]
            damage = Damage(str(record["key"]), cast(Problem, problem), str(record["detail"]))
            if problem in get_args(Problem) and damage.by_id and damage.id == object_id:
                found.append(damage)
        except (FormatError, NotFound, KeyError, ValueError):
            continue
    return found


def clear_damage(repository: Repository, object_ids: Iterable[bytes]) -> None:
    """The objects are right again, or nobody needs them."""
    repository.store.delete_many([damage_key(object_id) for object_id in object_ids])
