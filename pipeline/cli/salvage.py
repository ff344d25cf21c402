"""`failback salvage`: disks out of a repository whose pages or manifests are gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import exitcodes
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import CatalogueError, TargetError, TargetMismatch
from pipeline.units import count, size

if TYPE_CHECKING:
    from manifests.entry import PackTable
    from pipeline.catalogue import Point
    from pipeline.mend.salvage import Choice, Written
    from pipeline.mend.tables import Tables
    from pipeline.progress import Counters, Watch
    from pipeline.repository import Repository

_UNFINISHED = ".unfinished"
_RANGES = 1000
"""Ranges of each kind in the report; their number and bytes are told in full."""


@command
def salvage(
    invocation: Invocation,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where raw disks and report.json go; made if absent.")
    ],
    point: Annotated[
        str, typer.Argument(metavar="[MACHINE@POINT]", help="A point whose index is damaged; else disks of no point.")
    ] = "",
) -> Ending:
    """Salvage disks from what packs say of themselves: those of a damaged point, or those that no manifest speaks of.

    Says of each disk whether it is proved by the point's digest, and which bytes are doubtful. Ends with code 5 unless
    every disk is proved.
    """
    from manifests.names import encode_machine
    from pipeline.cli.progress import shown
    from pipeline.mend.salvage import choose_for_point, choose_without_point
    from pipeline.mend.tables import read_tables
    from pipeline.progress import Counters

    repository = invocation.open_repository()
    found, at = _point(repository, point) if point else (None, 0.0)
    unfinished = _claim(out)
    disks: list[dict[str, Any]] = []
    with shown(invocation.output) as meter:
        counters = Counters(phase="salvage", disk=repository.store.name)
        parallel = min(6, invocation.settings.parallel)
        tables = read_tables(repository, parallel=parallel, tick=lambda: meter(counters))
        if found is not None:
            for disk in found.manifest.disks:
                choice = choose_for_point(repository, disk, tables.by_lineage.get(disk.lineage), tables.packs, at)
                path = (
                    out
                    / f"{encode_machine(found.manifest.machine.name)}-{found.manifest.sequence}-disk{disk.number}.raw"
                )
                written = _write(repository, choice, tables.packs, path, meter, counters)
                disks.append({"point": found.manifest.label, "disk": disk.number, **_values(path, choice, written)})
        else:
            named = _named_lineages(repository)
            for lineage, stored in sorted(tables.by_lineage.items()):
                if lineage not in named:
                    choice = choose_without_point(stored)
                    path = out / f"{lineage}.raw"
                    written = _write(repository, choice, tables.packs, path, meter, counters)
                    disks.append({"lineage": lineage, **_values(path, choice, written)})
    _report(invocation, out, disks, tables, named_point=found is not None)
    unfinished.unlink()
    proved = bool(disks) and all(disk["proved"] and not disk["unreadable"]["bytes"] for disk in disks)
    return Ending(
        exitcodes.OK if proved or not disks else exitcodes.DAMAGED,
        {"report": str(out / "report.json"), "disks": disks, "unread_tables": tables.problems},
    )


def _claim(out: Path) -> Path:
    """Make the folder, or take one in which a salvage was cut off: what that left is replaced. Gives its marker."""
    marker = out / _UNFINISHED
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not marker.exists() and any(out.iterdir()):
            raise TargetMismatch(f"{out} is not empty", remedy="name a new folder")
        marker.touch()
    except OSError as error:
        raise TargetError(f"{out} cannot be used: {error.strerror}", remedy="name another folder") from error
    return marker


def _point(repository: Repository, text: str) -> tuple[Point, float]:
    """The point and when its manifest was stored; a forgotten one will do."""
    from manifests.names import manifest_key, parse_point
    from pipeline.catalogue import load, resolve

    name = parse_point(text)
    point = resolve(repository, name) if name.sequence is None else load(repository, name.machine, name.sequence)
    if point is None:
        raise CatalogueError(f"{text} is void: its export was fenced and never completed")
    info = repository.store.head(manifest_key(point.manifest.machine.name, point.manifest.sequence))
    return point, info.modified.timestamp() if info else 0.0


def _named_lineages(repository: Repository) -> set[str]:
    """Lineages of disks that a manifest still speaks of, forgotten ones too."""
    from pipeline.catalogue import load, machines, sequences
    from pipeline.errors import FormatError

    found: set[str] = set()
    for machine in machines(repository):
        for sequence in sequences(repository, machine):
            try:
                point = load(repository, machine, sequence)
            except (FormatError, CatalogueError):
                continue
            if point is not None:
                found |= {disk.lineage for disk in point.manifest.disks}
    return found


def _write(
    repository: Repository, choice: Choice, packs: PackTable, path: Path, meter: Watch, counters: Counters
) -> Written:
    from pipeline.mend.salvage import write_choice
    from pipeline.writers.raw import create_raw

    path.unlink(missing_ok=True)
    writer = create_raw(str(path), choice.size)
    try:
        return write_choice(repository, choice, packs, writer, tick=lambda: meter(counters))
    finally:
        writer.close()


def _values(path: Path, choice: Choice, written: Written) -> dict[str, Any]:
    from pipeline.transfer.prove import to_ranges

    def spans(positions: list[int]) -> dict[str, Any]:
        ranges = to_ranges(sorted(positions), size=choice.size, chunk_size=choice.chunk_size)
        total = sum(length for _offset, length in ranges)
        return {"bytes": total, "range_count": len(ranges), "ranges": ranges[:_RANGES]}

    return {
        "file": str(path),
        "size": choice.size,
        "chunk_size": choice.chunk_size,
        "proved": choice.proved,
        "from_index": choice.from_index,
        "from_tables": choice.from_tables,
        "ambiguous": spans(choice.ambiguous),
        "assumed_zero": spans(choice.assumed_zero),
        "unreadable": spans(written.unreadable),
    }


def _report(
    invocation: Invocation, out: Path, disks: list[dict[str, Any]], tables: Tables, *, named_point: bool
) -> None:
    notes = [
        "ambiguous: packs hold several contents of these bytes; the newest by the store's clock was taken",
        "assumed_zero: no pack names these bytes. They were zeros, or shared with another position, disk or point",
        "unreadable: the chunk is known and its pack is gone or damaged; zeros were written",
    ]
    if not named_point:
        notes.append("size: no manifest says how long the disk is; it ends with the last chunk that a pack names")
    document = {"disks": disks, "unread_tables": tables.problems, "notes": notes}
    (out / "report.json").write_text(json.dumps(document, indent=1))
    say = invocation.output.say
    if not disks:
        say("no pack holds a disk that no manifest speaks of: name a point whose index is damaged")
    for disk in disks:
        sure = "PROVED by the digest of its point" if disk["proved"] else "not proved"
        doubtful = ", ".join(
            f"{size(disk[kind]['bytes'])} {kind.replace('_', ' ')}"
            for kind in ("ambiguous", "assumed_zero", "unreadable")
            if disk[kind]["bytes"]
        )
        say(f"{disk['file']}: {size(disk['size'])}, {sure}" + (f"; {doubtful}" if doubtful else ""))
    if tables.problems:
        invocation.warn(f"the tables of {count(len(tables.problems), 'pack')} could not be read")
    say(f"{out / 'report.json'} says which bytes are doubtful, and why")
