"""Small records that collections and those who use points write: fences, plans, holds, verifications.

FORMAT.md, section 13.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from manifests.envelope import Kind
from manifests.manifest import decode_record, encode_record
from manifests.names import decode_machine, encode_machine, sequence_part
from pipeline.catalogue import Point, forgotten, now
from pipeline.errors import (
    AccessDenied,
    AlreadyExists,
    CatalogueError,
    CorruptObject,
    FormatError,
    NotFound,
    UsageError,
)
from pipeline.repository import Repository

CLOCK = "gc/clock"
PLANS_KEPT = 20
HOW = ("read", "boot")
"""Ways in which points are found good."""
Name = tuple[str, int]
_HOLDER = re.compile("[a-z0-9][a-z0-9-]{0,99}")


def by() -> str:
    """Who writes, for people."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def fence(repository: Repository, key: str) -> None:
    """A void record at the announced key, unless a manifest came first. The store must have conditional PUT."""
    record = {"reason": "its writer gave no sign for longer than the grace", "time": now(), "by": by()}
    with suppress(AlreadyExists):
        data = encode_record(Kind.VOID, record, sealing=repository.sealing, key=key)
        repository.store.put(key, data, create=True)


def publish(repository: Repository, key: str, plan: dict[str, Any], highest: dict[str, int]) -> None:
    """What is about to be deleted, and by machine the highest number that is taken; old plans go."""
    _put(repository, key, {"time": now(), "by": by(), "plan": plan, "highest": highest})
    old = [info.key for info in repository.store.list("gc/") if info.key != CLOCK]
    repository.store.delete_many(sorted(old)[:-PLANS_KEPT])


def known_heights(repository: Repository) -> dict[str, int]:
    """By machine the highest number that was taken when the last collection published its plan, or when this host
    looked: no number is ever given back, so whoever finds less does not see everything."""
    found = repository.seen.heights() if repository.seen is not None else {}
    with suppress(AccessDenied):
        keys = [info.key for info in repository.store.list("gc/") if info.key != CLOCK]
        said = next(filter(None, (_heights(repository, key) for key in sorted(keys, reverse=True))), {})
        for machine, height in said.items():
            found[machine] = max(found.get(machine, 0), height)
    return found


def _heights(repository: Repository, key: str) -> dict[str, int]:
    """What one plan says of them; nothing when it is damaged: the others tell."""
    try:
        record = _get(repository, key) or {}
        return {str(machine): int(height) for machine, height in record.get("highest", {}).items()}
    except (FormatError, AttributeError, TypeError, ValueError):
        return {}


@dataclass(frozen=True, slots=True)
class Hold:
    """Somebody needs a point: it is neither forgotten nor collected."""

    machine: str
    sequence: int
    holder: str
    reason: str
    time: str
    by: str


def hold(repository: Repository, point: Point, *, holder: str, reason: str) -> None:
    """Replaces what `holder` held of this machine. Raises CatalogueError when the point is forgotten meanwhile."""
    if not _HOLDER.fullmatch(holder):
        raise UsageError(f"{holder!r} is no name of a holder", remedy="use a-z, 0-9 and '-'")
    machine, sequence = point.manifest.machine.name, point.manifest.sequence
    record = {"sequence": sequence, "reason": reason, "time": now(), "by": by()}
    _put(repository, _hold_key(machine, holder), record)
    # Looked at after the hold is there: a collector that saw no hold honours no tombstone younger than its grace.
    if sequence in forgotten(repository, machine, after=sequence - 1):
        release(repository, machine, holder)
        raise CatalogueError(
            f"{point.manifest.label} was forgotten", remedy=f"`failback unforget {point.manifest.label}` brings it back"
        )


def release(repository: Repository, machine: str, holder: str) -> bool:
    """Whether there was such a hold."""
    key = _hold_key(machine, holder)
    if repository.store.head(key) is None:
        return False
    repository.store.delete_many([key])
    return True


def holds(repository: Repository, machine: str = "") -> list[Hold]:
    """Of one machine, or of all. Raises CorruptObject for one that can't be read."""
    prefix = f"holds/{encode_machine(machine)}/" if machine else "holds/"
    found = []
    for info in list(repository.store.list(prefix)):
        parts = info.key.split("/")
        record = _get(repository, info.key)
        if record is None:
            continue
        try:
            words = (str(record[name]) for name in ("reason", "time", "by"))
            found.append(Hold(decode_machine(parts[1]), int(record["sequence"]), parts[2], *words))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CorruptObject(
                f"{info.key} is not a hold", remedy="remove it, if you know who put it there"
            ) from error
    return found


def held_points(repository: Repository) -> set[Name]:
    return {(h.machine, h.sequence) for h in holds(repository)}


def record_verification(repository: Repository, point: Point, how: str) -> None:
    """That a point was found good by `how` ("read" or "boot"); the first time counts."""
    manifest = point.manifest
    key = f"{_verified_prefix(manifest.machine.name)}{sequence_part(manifest.sequence)}/{how}"
    if repository.store.head(key) is None:
        _put(repository, key, {"time": now(), "by": by(), "manifest": point.object_hash})


def verified_manifests(repository: Repository, point: Point) -> dict[str, str]:
    """By how it was found good: BLAKE3 of the manifest that was. Raises AccessDenied, CorruptObject."""
    prefix = f"{_verified_prefix(point.manifest.machine.name)}{sequence_part(point.manifest.sequence)}/"
    records = {how: _get(repository, f"{prefix}{how}") for how in HOW}
    return {how: str(record.get("manifest", "")) for how, record in records.items() if record is not None}


def verified(repository: Repository, machine: str) -> set[int]:
    """Sequences of points that were found good at least once."""
    found = set()
    for info in repository.store.list(_verified_prefix(machine)):
        digits = info.key.split("/")[2]
        if digits.isdigit():
            found.add(int(digits))
    return found


@dataclass(frozen=True, slots=True)
class Verification:
    """That a point was found good. `time` is when that was noted, by the store's clock."""

    sequence: int
    how: str
    time: datetime


def verifications(repository: Repository, machine: str) -> list[Verification]:
    """All of a machine, the latest first, as listed: whoever believes one reads it (`verified_manifests`)."""
    found = []
    for info in repository.store.list(_verified_prefix(machine)):
        _, _, digits, how = (*info.key.split("/"), "", "")[:4]
        if digits.isdigit() and how in HOW:
            found.append(Verification(int(digits), how, info.modified))
    return sorted(found, key=lambda v: (v.time, v.sequence, v.how), reverse=True)


def verification_keys(names: Iterable[Name]) -> list[str]:
    """Where it would be noted that these points are good, in order."""
    return sorted(f"{_verified_prefix(m)}{sequence_part(s)}/{how}" for m, s in names for how in HOW)


def _hold_key(machine: str, holder: str) -> str:
    return f"holds/{encode_machine(machine)}/{holder}"


def _verified_prefix(machine: str) -> str:
    return f"verified/{encode_machine(machine)}/"


def _put(repository: Repository, key: str, record: dict[str, Any]) -> None:
    repository.store.put(key, encode_record(Kind.RECORD, record, sealing=repository.sealing, key=key))


def _get(repository: Repository, key: str) -> dict[str, Any] | None:
    try:
        data = repository.store.get(key)
    except NotFound:
        return None
    return decode_record(memoryview(data), Kind.RECORD, sealing=repository.sealing, key=key)
