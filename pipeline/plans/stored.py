"""Plans in the repository: immutable versions, kept for ever (FORMAT.md, section 17)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from manifests.envelope import Kind
from manifests.manifest import decode_record, encode_record
from manifests.names import MAX_SEQUENCE, PLANS_PREFIX, plan_key, plan_prefix
from manifests.text import to_json
from pipeline.catalogue import now, sequence_of
from pipeline.collect.record import by
from pipeline.errors import AlreadyExists, CatalogueError, CorruptObject, FormatError, NewerFormat, NotFound, UsageError
from pipeline.plans.model import PLAN_NAME, Plan
from pipeline.plans.parse import parse_plan
from pipeline.repository import Repository
from pipeline.store.base import Bytes
from pipeline.store.older import older

_ATTEMPTS = 20
"""Numbers that others take while we look."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of a plan."""

    plan: Plan
    document: dict[str, Any]
    """As its author wrote it."""
    version: int
    digest: str
    """Hex BLAKE3 of the document: what a run and an approval bind, besides the number."""
    time: str
    """By the clock of who stored it."""
    by: str

    @property
    def label(self) -> str:
        return f"{self.plan.name}@{self.version}"


def parse_version(text: str) -> tuple[str, int | None]:
    """Read `PLAN`, `PLAN@latest` or `PLAN@3`. Raises UsageError."""
    name, at, version = text.partition("@")
    if not re.fullmatch(PLAN_NAME, name):
        raise UsageError(f"{name[:80]!r} is no name of a plan", remedy="it has a-z, 0-9 and '-', up to 40 characters")
    if not at or version == "latest":
        return name, None
    if not (version.isascii() and version.isdigit() and 1 <= int(version) <= MAX_SEQUENCE):
        raise UsageError(f"{version[:80]!r} is no version of a plan", remedy="write PLAN@NUMBER or PLAN@latest")
    return name, int(version)


def plan_names(repository: Repository) -> list[str]:
    """All plans that have a version, sorted."""
    found: list[str] = []
    after = ""
    while (info := next(iter(repository.store.list(PLANS_PREFIX, after=after)), None)) is not None:
        # One key per plan: the next listing starts behind all versions of this one.
        found.append(info.key.split("/")[1])
        after = f"{plan_prefix(found[-1])}~"
    return sorted(found)


def versions(repository: Repository, name: str) -> list[int]:
    """Numbers of all versions, ascending."""
    return [sequence_of(info.key) for info in repository.store.list(plan_prefix(name))]


def read(repository: Repository, name: str, version: int | None = None) -> Stored:
    """A version, or the newest. Kinds that are not installed here are no error. Raises CatalogueError when there is
    none, NewerFormat for one that this failback does not understand, CorruptObject."""
    if version is None:
        found = versions(repository, name)
        if not found:
            known = ", ".join(plan_names(repository))
            raise CatalogueError(
                f"there is no plan {name!r} in {repository.store.name}",
                remedy=f"there are: {known}" if known else "`failback plan put FILE` stores one",
            )
        version = found[-1]
    key = plan_key(name, version)

    def whole(data: bytes) -> Stored | None:
        try:
            return _decoded(repository, name, version, data)
        except FormatError:
            return None

    try:
        return _decoded(repository, name, version, repository.store.get(key))
    except NotFound:
        taken = versions(repository, name)
        gone = CatalogueError(
            f"plan {name} has no version {version}",
            remedy=f"it has {', '.join(map(str, taken[-10:]))}" if taken else "`failback plan list` shows the plans",
        )
        stood_in = older(repository.store, key, whole, gone, oldest_first=True)
        if stood_in is None:
            raise gone from None
    except CorruptObject as error:
        stood_in = older(repository.store, key, whole, error, oldest_first=True)
        if stood_in is None:
            raise
    repository.stood_in.add(key)
    return stood_in


def put(repository: Repository, plan: Plan, document: dict[str, Any]) -> tuple[Stored, bool]:
    """Store a plan, which is what `document` holds (`pipeline.plans.parse.parse_text`), as its next version. False: the
    newest version means the same, and is what is returned."""
    for _attempt in range(_ATTEMPTS):
        taken = versions(repository, plan.name)
        newest = read(repository, plan.name, taken[-1]) if taken else None
        if newest is not None and newest.plan == plan:
            return newest, False
        number = (taken[-1] if taken else 0) + 1
        key = plan_key(plan.name, number)
        record = {"format": 1, "plan": document, "time": now(), "by": by()}
        data = encode_record(Kind.RECORD, record, sealing=repository.sealing, key=key)
        try:
            repository.store.put(key, data, create=repository.conditional_put)
        except AlreadyExists:
            continue  # somebody else's, or ours, whose answer was lost: the next look tells
        stored = read(repository, plan.name, number)
        if stored.plan == plan:
            return stored, True
    raise CatalogueError(
        f"plan {plan.name} gets new versions faster than this one can be stored",
        remedy="find out who else stores it, and try again",
    )


def _decoded(repository: Repository, name: str, version: int, data: Bytes) -> Stored:
    key = plan_key(name, version)
    record = decode_record(memoryview(data), Kind.RECORD, sealing=repository.sealing, key=key)
    if record.get("format") != 1:
        raise NewerFormat(f"{key} was written by a newer failback", remedy="upgrade failback on this host")
    document = record.get("plan")
    if not isinstance(document, dict):
        raise CorruptObject(f"{key} holds no plan", remedy="remove it, if you know who put it there")
    try:
        plan = parse_plan(document, where=f"{name}@{version}", installed=False)
    except UsageError as error:
        raise NewerFormat(
            f"this failback does not understand {error.message}", remedy="upgrade failback on this host"
        ) from None
    if plan.name != name:
        raise CorruptObject(f"{key} holds plan {plan.name}", remedy="remove it, if you know who put it there")
    digest = blake3(to_json(document)).hexdigest()
    return Stored(plan, document, version, digest, str(record.get("time", "")), str(record.get("by", "")))
