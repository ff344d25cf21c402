"""`failback diff`: what differs between two recovery points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.units import count, share, size

if TYPE_CHECKING:
    from manifests.entry import Positions
    from manifests.manifest import Disk
    from pipeline.repository import Repository

SHOWN = 20


@dataclass(slots=True)
class DiskDifference:
    """How one disk differs: ranges are (offset, length) in bytes, in whole chunks."""

    number: int
    text: str = ""
    """Why it cannot be compared, or what to know of the comparison."""
    comparable: bool = True
    bytes: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)

    def add(self, positions: Positions, disk: Disk) -> None:
        """Take ascending positions that differ; `disk` says how large they are."""
        import numpy as np

        if not len(positions):
            return
        breaks = np.flatnonzero(np.diff(positions) != 1) + 1
        for run in np.split(positions, breaks):
            offset = int(run[0]) * disk.chunk_size
            end = min((int(run[-1]) + 1) * disk.chunk_size, disk.size)
            self.bytes += end - offset
            if self.ranges and sum(self.ranges[-1]) == offset:
                offset = self.ranges.pop()[0]
            self.ranges.append((offset, end - offset))


@command
def diff(
    invocation: Invocation,
    old: Annotated[str, typer.Argument(metavar="POINT", help="MACHINE@POINT")],
    new: Annotated[str, typer.Argument(metavar="POINT", help="MACHINE@POINT, of the same machine or another")],
    ranges: Annotated[bool, typer.Option("--ranges", help=f"Print all ranges, not only {SHOWN} a disk.")] = False,
) -> Ending:
    """Show which bytes differ between two points, disk by disk. Reads indexes only, and of them what is not shared."""
    from manifests.names import parse_point
    from pipeline.catalogue import resolve

    repository = invocation.open_repository()
    before, after = (resolve(repository, parse_point(name)).manifest for name in (old, new))
    left, right = ({d.number: d for d in manifest.disks} for manifest in (before, after))
    found = []
    say = invocation.output.say
    for number in sorted(left.keys() | right.keys()):
        one, two = left.get(number), right.get(number)
        if one is None or two is None:
            there = after if one is None else before
            difference = DiskDifference(number, f"only in {there.label}", comparable=False)
        else:
            difference = compare(repository, one, two)
        found.append(difference)
        _say(invocation, difference, two or one, None if ranges else SHOWN)
    hardware = {
        name: (getattr(before.machine, name), getattr(after.machine, name))
        for name in ("firmware", "secure_boot", "cpus", "memory_bytes", "nics")
        if getattr(before.machine, name) != getattr(after.machine, name)
    }
    for name, (was, now) in hardware.items():
        say(f"{name.replace('_', ' ')}: {_plain(was)} before, {_plain(now)} after")
    return Ending(
        values={
            "old": before.label,
            "new": after.label,
            "bytes": sum(d.bytes for d in found),
            "hardware": {name: [_plain(was), _plain(now)] for name, (was, now) in hardware.items()},
            "disks": [
                {
                    "number": d.number,
                    "comparable": d.comparable,
                    "text": d.text,
                    "bytes": d.bytes,
                    "range_count": len(d.ranges),
                    "ranges": d.ranges if ranges else d.ranges[:SHOWN],
                }
                for d in found
            ],
        }
    )


def compare(repository: Repository, old: Disk, new: Disk) -> DiskDifference:
    """The difference of two disks, from their indexes."""
    from manifests.entry import PackTable, same_ids
    from pipeline.transfer.index_reader import IndexReader, differences

    found = DiskDifference(new.number)
    if old.chunk_size != new.chunk_size:
        found.comparable = False
        found.text = (
            f"has chunks of {size(old.chunk_size)} in one point and {size(new.chunk_size)} in the other: "
            "their indexes cannot be compared; `failback verify --disk` compares a disk"
        )
        return found
    notes = []
    if old.lineage != new.lineage:
        notes.append("two disks of different origin, compared by position")
    if old.size != new.size:
        notes.append(f"{size(old.size)} before, {size(new.size)} after")
    found.text = "; ".join(notes)
    if old.digest == new.digest:
        return found
    packs = PackTable()
    before, after = IndexReader(repository, old, packs), IndexReader(repository, new, packs)
    larger = old if old.size > new.size else new
    for positions, rows in differences(before, after):
        if old.size == new.size:
            # A chunk that was rewritten with what it held does not differ.
            differ = ~same_ids(before.lookup(positions), rows)
            positions = positions[differ]
        found.add(positions, larger)
    return found


def _say(invocation: Invocation, difference: DiskDifference, disk: Disk | None, limit: int | None) -> None:
    say = invocation.output.say
    note = f" ({difference.text})" if difference.text else ""
    if not difference.comparable:
        say(f"disk {difference.number}: {difference.text}")
    elif not difference.ranges:
        say(f"disk {difference.number}: no difference{note}")
    else:
        whole = disk.size if disk else 0
        say(
            f"disk {difference.number}: {size(difference.bytes)} differ, {share(difference.bytes, whole)} of the disk, "
            f"in {count(len(difference.ranges), 'range')}{note}"
        )
        for offset, length in difference.ranges[:limit]:
            say(f"  {length} bytes at {offset}")
        if limit is not None and len(difference.ranges) > limit:
            say(f"  and {len(difference.ranges) - limit} more; --ranges prints all")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [item.model_dump(mode="json") if hasattr(item, "model_dump") else item for item in value]
    return value
