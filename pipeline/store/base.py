"""The store interface: eight verbs, typed errors, and existence that is three-valued (yes, no, error).

A store maps keys to immutable byte strings. Keys are ASCII, `/`-separated, without empty parts and without parts that
begin with a dot (file systems and servers keep their own things there). No key may be the "directory" of another
(`a` and `a/b`): some servers refuse it. Anything in the same place that has no valid key is ignored.

All verbs are safe to call from many threads at once. A backend makes one attempt per call and translates what went
wrong into `pipeline.errors`: `transient` errors may be tried again, and only `pipeline.store.retry` does so.
"""

from __future__ import annotations

import builtins
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

from pipeline.errors import UsageError

Bytes: TypeAlias = "bytes | bytearray | memoryview"
"""Any contiguous buffer: stores take them without copying where they can."""

_PART = "[A-Za-z0-9%_~-][A-Za-z0-9%_.~-]*"
_KEY = re.compile(f"{_PART}(/{_PART})*")
NO_REPOSITORY = "check the address, mount what belongs there, or make one with `failback repository init`"
"""What the user can do where a repository is looked for and nothing is."""
MAX_KEY = 900
"""Longest key in characters: S3 takes 1,024 bytes, and a repository's prefix comes in front."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing or a head request says of one object. `modified` is the store's own clock (UTC)."""

    key: str
    size: int
    modified: datetime
    version: str = ""
    """Of a head request where the store keeps versions: which one it is."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a store was seen to do, probed and never assumed. `clock_skew` is store minus local, in seconds;
    `checksum_headers` says that an upload with a wrong checksum was refused."""

    conditional_put: bool
    ranged_get: bool
    multi_delete: bool
    list_after: bool
    clock_skew: float
    checksum_headers: bool = False
    object_lock: bool = False
    versioning: bool = False
    notes: tuple[str, ...] = field(default=())


def check_key(key: str) -> str:
    """Return `key` if it is a valid object key, else raise UsageError. Called once, at the border."""
    if not is_key(key):
        raise UsageError(f"not a valid object key: {key[:200]!r}", remedy="keys are ASCII words joined by '/'")
    return key


def is_key(key: str) -> bool:
    """Whether `key` is one that a store would take."""
    return len(key) <= MAX_KEY and _KEY.fullmatch(key) is not None


def flat(data: Bytes) -> memoryview:
    """`data` as one row of bytes, not copied. Raises UsageError when it is not contiguous."""
    view = memoryview(data)
    if not view.c_contiguous:
        raise UsageError("an object's data must be one contiguous buffer")
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object. A `marker` has no bytes: it hides the versions before it, as a deletion."""

    key: str
    id: str
    size: int
    modified: datetime
    newest: bool
    marker: bool


@dataclass(frozen=True, slots=True)
class Locked:
    """A version that a lock kept from being deleted."""

    version: Version
    until: datetime | None
    """When the lock ends; None: somebody has to take it away (a legal hold)."""


class Versions(ABC):
    """What a store that keeps versions can do besides. Safe for many threads; errors as those of `Store`."""

    @abstractmethod
    def list_versions(self, key: str) -> builtins.list[Version]:
        """All versions of one key, the newest first. Without versioning: the object itself, if it is there."""

    @abstractmethod
    def walk(self, prefix: str, *, after: str = "") -> Iterator[Version]:
        """All versions of all keys that start with `prefix` and sort after `after`, in key order, the newest of a key
        first. A walk that ends without an exception is complete."""

    @abstractmethod
    def get_version(self, version: Version) -> bytes:
        """The whole of it. Raises NotFound."""

    @abstractmethod
    def delete_versions(self, versions: Iterable[Version]) -> builtins.list[Locked]:
        """Free their space; those that are gone are no error. Returns those that are locked, which stay.

        Raises on the first that could not be deleted for another reason.
        """


class Store(ABC):
    """One bucket and prefix, or one directory."""

    name: str
    """Address for people: no secrets in it."""

    @abstractmethod
    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        """Store `data` durably under `key`, whole or not at all.

        With `create`, raise AlreadyExists when the key exists (atomic among racing creators where the
        store can: `Abilities.conditional_put`). A lost answer may leave the object stored.
        """

    @abstractmethod
    def get(self, key: str) -> memoryview:
        """The whole object, read-only. Raises NotFound.

        A view, so that slices are free. Take `bytes(view)` to compare (views compare slowly) and to parse JSON.
        """

    @abstractmethod
    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        """Exactly `length` bytes from `offset`. Raises NotFound, or CorruptObject when the object is shorter."""

    @abstractmethod
    def head(self, key: str) -> ObjectInfo | None:
        """Size and time, or None when the object is proved absent. Never None on an error."""

    @abstractmethod
    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix` (a plain string prefix) and sorts after `after`, in key order.

        Raises on any error, also in the middle: a listing that ends without an exception is complete.
        """

    @abstractmethod
    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete all `keys`; absent ones are no error. Raises on the first key that could not be deleted."""

    @abstractmethod
    def probe(self) -> Abilities:
        """Find out what this store can do, using objects below `probe/` that are deleted again."""

    def trust_names(self, folders: Sequence[str]) -> None:
        """Objects in these folders are named by the hash of their bytes, so no reader can be deceived about them.

        A store whose server compares checksums of uploads (`Abilities.checksum_headers`) may then save itself a
        signature over their bytes. Called before the first of them is put.
        """
        return

    def versions(self) -> Versions | None:
        """Access to older versions of objects; None where the store has no such verbs."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Release connections. No verb may be called afterwards."""
