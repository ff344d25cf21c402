"""`failback list`: machines, or the recovery points of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from manifests.names import PointName, encode_machine
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import FormatError
from pipeline.units import moment, size

if TYPE_CHECKING:
    from pipeline.catalogue import Point
    from pipeline.repository import Repository


@command
def list_(
    invocation: Invocation,
    machine: Annotated[str, typer.Argument(metavar="[MACHINE]", help="Whose points; all machines without it.")] = "",
    report: Annotated[
        str, typer.Option("--report", metavar="URL", help="Also write this as JSON to a file or any fsspec URL.")
    ] = "",
) -> Ending:
    """List the machines of a repository, or the recovery points of one machine."""
    values = _points(invocation, machine) if machine else _machines(invocation)
    if report:
        from pipeline.cli.documents import write_json

        write_json(report, values)
        invocation.output.say(f"written to {report}")
    return Ending(values=values)


def _machines(invocation: Invocation) -> dict[str, Any]:
    from pipeline.catalogue import machines

    repository = invocation.open_repository()
    found: list[dict[str, Any]] = []
    rows: list[tuple[str, ...]] = []
    for name in machines(repository):
        every = _load_all(invocation, repository, name)
        if not every:
            found.append({"machine": name, "points": 0, "latest": None})
            rows.append((name, "0", "", "", "", "", ""))
            continue
        newest = point_values(every[-1])
        found.append({"machine": name, "points": len(every), "latest": newest})
        sizes = size(newest["size"]), size(newest["live"])
        rows.append((name, str(len(every)), str(newest["disks"]), *sizes, newest["point"], moment(newest["time"])))
    if found:
        columns = ("MACHINE", "POINTS", "DISKS", "SIZE", "STORED", "LATEST", "TIME")
        invocation.output.table(columns, rows, right=(1, 2, 3, 4))
    else:
        invocation.output.say("the repository holds no machine yet: `failback export` brings one")
    return {"machines": found}


def _points(invocation: Invocation, machine: str) -> dict[str, Any]:
    encode_machine(machine)
    found = [point_values(point) for point in _load_all(invocation, invocation.open_repository(), machine)]
    rows = [
        (
            p["point"],
            moment(p["time"]),
            p["consistency"] + (", final" if p["final"] else "") + (", gaps" if p["unreadable"] else ""),
            str(p["disks"]),
            size(p["size"]),
            size(p["data"]),
            size(p["stored"]),
            p["parent"] or "",
        )
        for p in found
    ]
    columns = ("POINT", "TIME", "CONSISTENCY", "DISKS", "SIZE", "DATA", "ADDED", "PARENT")
    if found:
        invocation.output.table(columns, rows, right=(3, 4, 5, 6))
    else:
        invocation.output.say(f"{machine} has no usable point: all are void or forgotten")
    return {"machine": machine, "points": found}


def _load_all(invocation: Invocation, repository: Repository, machine: str) -> list[Point]:
    """All usable points of a machine, oldest first; manifests are small, so many are read at once."""
    from concurrent.futures import ThreadPoolExecutor

    from pipeline.catalogue import check_tombstones, forgotten, load, mismatch, notice, resolve, sequences

    gone = forgotten(repository, machine)
    taken = sequences(repository, machine)
    notice(repository, machine, taken, gone)
    if not taken:
        resolve(repository, PointName(machine, None))  # raises the error that says which machines there are
    wanted = [sequence for sequence in taken if sequence not in gone]
    for sequence in gone.intersection(taken):
        try:
            check_tombstones(repository, machine, [sequence])
        except FormatError as error:
            invocation.warn(f"{error.message}; it hides {machine}@{sequence}")

    def read(sequence: int) -> Point | FormatError | None:
        try:
            return load(repository, machine, sequence)
        except FormatError as error:
            return error  # one damaged point must not hide the others

    with ThreadPoolExecutor(invocation.settings.parallel, "list") as pool:
        found = list(pool.map(read, wanted))
    for point in found:
        if isinstance(point, FormatError):
            invocation.warn(f"{point.message}; left out here")
    points = [point for point in found if point is not None and not isinstance(point, FormatError)]
    hashes = {sequence: "" for sequence, point in zip(wanted, found, strict=True) if point is None}
    hashes |= {point.manifest.sequence: point.object_hash for point in points}
    for point in points:
        if text := mismatch(point, hashes):
            invocation.warn(text)
    return points


def point_values(point: Point) -> dict[str, Any]:
    """A recovery point in a few values; sizes in bytes."""
    manifest = point.manifest
    disks = manifest.disks
    return {
        "point": manifest.label,
        "sequence": manifest.sequence,
        "time": manifest.time,
        "consistency": manifest.consistency,
        "final": manifest.final,
        "parent": f"{manifest.machine.name}@{manifest.parent.sequence}" if manifest.parent else None,
        "disks": len(disks),
        "size": sum(d.size for d in disks),
        "data": sum(d.data_bytes for d in disks),
        "stored": sum(d.stored_bytes for d in disks),
        "live": sum(d.live_bytes for d in disks),
        "unreadable": sum(length for d in disks for _offset, length in d.unreadable),
    }
