"""Every recovery point: which there are, which are forgotten, and whether one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from manifests.names import decode_machine, manifest_key
from pipeline.catalogue import sequence_of
from pipeline.errors import CorruptObject
from pipeline.repository import Repository

Name = tuple[str, int]
"""Machine and sequence."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What is listed at places named by machine and sequence, with the store's times."""

    times: dict[Name, float]

    @classmethod
    def read(cls, repository: Repository, prefix: str) -> Keys:
        """Of `manifests/` or `tombstones/`."""
        times = {}
        for info in repository.store.list(prefix):
            parts = info.key.split("/")
            if len(parts) != 3:
                raise CorruptObject(
                    f"{info.key} is not a key of failback", remedy="remove it, if you know who put it there"
                )
            times[decode_machine(parts[1]), sequence_of(info.key)] = info.modified.timestamp()
        return cls(times)

    def highest(self) -> dict[str, int]:
        """By machine."""
        found: dict[str, int] = {}
        for machine, sequence in self.times:
            found[machine] = max(found.get(machine, 0), sequence)
        return found


def check_gaps(manifests: Keys, tombstones: Keys) -> None:
    """Raises CorruptObject when a sequence has neither manifest nor void record nor tombstone."""
    for machine, sequence in _missing(manifests, tombstones):
        raise CorruptObject(
            f"{manifest_key(machine, sequence)} is missing, and no tombstone says that the point was forgotten",
            remedy="nothing is collected: restore it from an older version or copy of the bucket; if it is lost for "
            f"good, `failback forget {machine}@{sequence} --missing --reason …` says so",
        )


def _missing(manifests: Keys, tombstones: Keys) -> Iterator[Name]:
    highest = manifests.highest()
    for machine, sequence in tombstones.highest().items():
        highest[machine] = max(highest.get(machine, 0), sequence)
    for machine, last in sorted(highest.items()):
        for sequence in range(1, last + 1):
            if (machine, sequence) not in manifests.times and (machine, sequence) not in tombstones.times:
                yield machine, sequence
