"""Every recovery point: which there are, which are forgotten, and whether one is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from manifests.names import decode_machine, manifest_key
from pipeline.catalogue import sequence_of
from pipeline.collect.history import History, histories
from pipeline.errors import CorruptObject, NotFound
from pipeline.repository import Repository
from pipeline.store.base import Versions

Name = tuple[str, int]
"""Machine and sequence."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What is listed at places named by machine and sequence, with the store's times."""

    times: dict[Name, float]
    hidden: dict[Name, History] = field(default_factory=dict)
    """In a bucket that keeps versions: what was there and was deleted."""
    rewritten: dict[Name, History] = field(default_factory=dict)
    """There: what holds something else now than at first."""

    @classmethod
    def read(cls, repository: Repository, prefix: str) -> Keys:
        """Of `manifests/` or `tombstones/`."""
        return cls({_name(info.key): info.modified.timestamp() for info in repository.store.list(prefix)})

    @classmethod
    def read_versions(cls, versions: Versions, prefix: str) -> Keys:
        """As `read`, with what is hidden, and what was rewritten."""
        found = cls({})
        for history in histories(versions, prefix):
            if history.hidden:
                found.hidden[_name(history.key)] = history
                continue
            found.times[_name(history.key)] = history.info.modified.timestamp()
            if first_differs(versions, history):
                found.rewritten[_name(history.key)] = history
        return found

    @property
    def readable(self) -> set[Name]:
        """What is listed, and what is hidden and has versions left."""
        return self.times.keys() | {name for name, history in self.hidden.items() if history.contents}

    def highest(self) -> dict[str, int]:
        """By machine."""
        found: dict[str, int] = {}
        for machine, sequence in self.times:
            found[machine] = max(found.get(machine, 0), sequence)
        return found


def check_gaps(manifests: Keys, tombstones: Keys, known: Mapping[str, int]) -> None:
    """Raises CorruptObject when a sequence has neither manifest nor void record nor tombstone. `known`: by machine the
    highest one that was there before, which no gap tells of when all from there on is gone or left out."""
    for machine, sequence in _missing(manifests, tombstones, known):
        hidden = manifests.hidden.get((machine, sequence))
        if hidden is not None and hidden.contents:
            raise CorruptObject(
                f"{manifest_key(machine, sequence)} was deleted, and no tombstone says that the point was forgotten; "
                "its older versions are still there",
                remedy="nothing is collected: `failback repair` puts it back; look for who deleted it. If it is not "
                f"wanted any more, `failback forget {machine}@{sequence} --reason …` says so",
            )
        raise CorruptObject(
            f"{manifest_key(machine, sequence)} is missing, and no tombstone says that the point was forgotten",
            remedy="nothing is collected: look for a rule of the bucket that expires objects, or a listing that is cut "
            "short; restore it from an older version or copy of the bucket; if it is lost for "
            f"good, `failback forget {machine}@{sequence} --missing --reason …` says so",
        )


def check_rewritten(manifests: Keys, tombstones: Keys) -> None:
    """Raises CorruptObject when a manifest is not what was written there at first and nobody gave the point up: what
    the first one needs would be taken for garbage."""
    for machine, sequence in sorted(manifests.rewritten):
        if (machine, sequence) not in tombstones.times:
            raise CorruptObject(
                f"{manifest_key(machine, sequence)} was overwritten with something else",
                remedy="nothing is collected: manifests are written once, so somebody's credentials may be stolen. "
                f"`failback repair` puts the first version back; `failback forget {machine}@{sequence} --reason …` "
                "gives the point up",
            )


def first_differs(versions: Versions, history: History) -> bool:
    """Whether the newest version has other bytes than the oldest that is kept."""
    first, newest = history.contents[-1], history.contents[0]
    if first == newest:
        return False
    if first.size != newest.size:
        return True
    try:
        return versions.get_version(first) != versions.get_version(newest)
    except NotFound:
        return False  # a collector takes a forgotten point's manifest just now


def _name(key: str) -> Name:
    parts = key.split("/")
    if len(parts) != 3:
        raise CorruptObject(f"{key} is not a key of failback", remedy="remove it, if you know who put it there")
    return decode_machine(parts[1]), sequence_of(key)


def _missing(manifests: Keys, tombstones: Keys, known: Mapping[str, int]) -> Iterator[Name]:
    highest = manifests.highest()
    for machine, sequence in [*tombstones.highest().items(), *manifests.hidden, *known.items()]:
        highest[machine] = max(highest.get(machine, 0), sequence)
    for machine, last in sorted(highest.items()):
        for sequence in range(1, last + 1):
            if (machine, sequence) not in manifests.times and (machine, sequence) not in tombstones.times:
                yield machine, sequence
