"""What a collection found, and what it deletes or would delete."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.collect.history import Erased
from pipeline.collect.inventory import Inventory
from pipeline.transfer.compaction import SPARSE


@dataclass(frozen=True, slots=True)
class Share:
    """Some objects."""

    count: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, inventory: Inventory, which: NDArray[np.bool_]) -> Share:
        return cls(int(which.sum()), inventory.bytes_of(which))

    def __add__(self, other: Share) -> Share:
        return Share(self.count + other.count, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True)
class Kept:
    """Packs or index objects by what becomes of them."""

    live: Share
    doomed: Share
    young: Share
    """Needed by no point, and younger than the grace."""
    held: Share
    """Needed by no point, and older; a writer that is alive may need them."""
    foreign: int = 0


@dataclass(slots=True)
class Plan:
    """Times in seconds by the store's clock."""

    time: float
    grace: float
    machines: int = 0
    points: int = 0
    packs: Kept | None = None
    pages: Kept | None = None
    sparse: Share = field(default_factory=Share)
    """Live packs of which no point uses more than a little."""
    sparse_dead: int = 0
    """Bytes of these that the point which uses most of them does not use."""
    sessions: list[str] = field(default_factory=list)
    """Writers that are alive, and since when what is stored is kept for them."""
    fenced: list[str] = field(default_factory=list)
    """Sequences that nobody works on: they are, or would be, fenced."""
    unfenced: list[str] = field(default_factory=list)
    """The same, where the store cannot fence."""
    points_gone: list[str] = field(default_factory=list)
    """Forgotten for longer than the grace: their manifests go."""
    points_waiting: list[str] = field(default_factory=list)
    """Forgotten too recently, or used by a writer or a hold."""
    sessions_gone: list[str] = field(default_factory=list)
    """Sequences whose sessions and journals nobody needs any more."""
    versioned: bool = False
    """The bucket keeps versions."""
    hidden: Share | None = None
    """In a bucket that keeps versions: doomed packs and index objects that an earlier deletion hides, and the bytes of
    these and of older versions of the doomed ones. None: there are no versions, or they are kept."""
    erased: Erased | None = None
    """There, after they were deleted: what became of the versions."""

    @property
    def doomed(self) -> int:
        """Bytes that are freed, unless a lock keeps them."""
        kept = [kept.doomed for kept in (self.packs, self.pages) if kept is not None]
        return sum(share.bytes for share in [*kept, *([self.hidden] if self.hidden else [])])

    @property
    def freed(self) -> int:
        """Bytes that a collection which deleted has freed."""
        if self.versioned and self.hidden is None:
            return 0
        return self.erased.bytes if self.erased is not None else self.doomed

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        if self.erased is not None:
            found["erased"] |= {
                "first": self.erased.first and self.erased.first.isoformat(),
                "last": self.erased.last and self.erased.last.isoformat(),
            }
        return found


def kept(inventory: Inventory, *, older: float, before: float) -> tuple[NDArray[np.bool_], Kept]:
    """What is doomed: not live, made before `older` (now less the grace) and before `before` (the first writer's
    beginning)."""
    free = ~inventory.live
    old = inventory.made < older
    doomed = free & old & (inventory.made < before)
    return doomed, Kept(
        live=Share.of(inventory, inventory.live),
        doomed=Share.of(inventory, doomed),
        young=Share.of(inventory, free & ~old),
        held=Share.of(inventory, free & old & ~doomed),
        foreign=inventory.foreign,
    )


def sparse(inventory: Inventory, most: NDArray[np.int64]) -> tuple[Share, int]:
    """Packs that a background export would empty, and what they hold for nothing."""
    which = inventory.live & (most > 0) & (most <= SPARSE * inventory.sizes)
    return Share.of(inventory, which), int((inventory.sizes[which].astype(np.int64) - most[which]).sum())
