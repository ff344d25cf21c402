"""`failback import`: a recovery point becomes disks again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.units import count, duration, rate, size
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.catalogue import Point
    from pipeline.target import DiskRestored, Importer

GROUP = "failback.importers"
IMAGE_FORMATS = ("raw", "qcow2", "vmdk")


@command
def import_(
    invocation: Invocation,
    point: Annotated[str, typer.Argument(metavar="MACHINE[@POINT]", help="The latest point, or the one named.")],
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help="Where to: files.")] = "files",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for disk images, named MACHINE-disk0.raw and so on.")
    ] = None,
    image_format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="Of the images: raw, qcow2 or vmdk.")
    ] = "raw",
    seed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DISK", help="A surviving disk: what it still has is not fetched. Only read. May be repeated."
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N=PATH:size=BYTES|serial=TEXT",
            help="Write disk N onto this block device, if it has that size or serial. All of it is overwritten.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how much would move, and write nothing.")] = False,
) -> Ending:
    """Restore the disks of a recovery point, and prove that they are equal to it.

    A second import of a later point into the same place moves only what differs. Interrupted, the same command goes on.
    """
    from manifests.names import parse_point

    name = parse_point(point)
    if image_format not in IMAGE_FORMATS:
        raise UsageError(f"--format {image_format} is unknown", remedy=f"use {', '.join(IMAGE_FORMATS)}")
    devices = _devices(device or [])
    if out is None and not devices:
        raise UsageError("where should the disks go?", remedy="name a folder with --out, or a --device for each disk")
    repository = invocation.open_repository()

    from pipeline.catalogue import resolve
    from pipeline.cli.progress import shown
    from pipeline.target import RestoreRequest

    importer = _importer(to)
    found = resolve(repository, name)
    settings = invocation.settings
    request = RestoreRequest(
        out=out,
        state=settings.state_dir,
        image_format=image_format,
        seeds=tuple(seed or ()),
        devices=devices,
        dry_run=dry_run,
        memory=settings.memory_mib << 20,
        parallel=min(6, settings.parallel),
    )
    with shown(invocation.output) as meter:
        invocation.how_to_go_on = lambda: (
            "run the same command again to go on; until it ends, the disks are not whole"
            + (f" ({size(done)} are written already)" if (done := sum(c.written for c in meter.all)) else "")
            if not dry_run
            else ""
        )
        results = importer.restore(repository, found, request, watch=meter)
    return _ending(invocation, found, results, dry_run=dry_run)


def _importer(target: str) -> Importer:
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP, name=target):
        importer: Importer = entry.load()()
        return importer
    known = ", ".join(sorted({entry.name for entry in entry_points(group=GROUP)}))
    raise UsageError(f"--to {target} is unknown", remedy=f"known are: {known}")


def _devices(given: list[str]) -> dict[int, str]:
    devices: dict[int, str] = {}
    for text in given:
        match = re.fullmatch(r"(\d{1,4})=(.+)", text, re.DOTALL)
        if match is None:
            raise UsageError(
                f"--device {text} does not say which disk goes there",
                remedy="write --device NUMBER=PATH:size=BYTES or NUMBER=PATH:serial=TEXT",
            )
        number = int(match[1])
        if number in devices:
            raise UsageError(f"--device is given twice for disk {number}", remedy="a disk goes to one place")
        devices[number] = match[2]
    return devices


def _ending(invocation: Invocation, point: Point, results: list[DiskRestored], *, dry_run: bool) -> Ending:
    label = point.manifest.label
    disks = {d.number: d for d in point.manifest.disks}
    total = sum(disks[r.number].size for r in results)
    sums: dict[str, Any] = {n: sum(getattr(r.counters, n) for r in results) for n in ("read", "written", "unchanged")}
    to_move = sum(r.to_move for r in results)
    say = invocation.output.say
    if dry_run:
        say(f"{label} would move {size(to_move)} (nothing was written): {count(len(results), 'disk')}, {size(total)}")
    else:
        say(f"{label} is restored: {count(len(results), 'disk')}, {size(total)}")
    for result in results:
        invocation.note(f"  disk {result.number}: {result.target}: {result.mode}, {result.reason}")
        if not dry_run:
            invocation.note(f"  disk {result.number}: {result.proof}, digest {result.digest[:16]}…")
        for offset, length in disks[result.number].unreadable:
            invocation.warn(
                f"disk {result.number}: {length} bytes at {offset} are zeros: the source could not be read there"
            )
    if not dry_run:
        say(
            f"  fetched {size(sums['read'])}, wrote {size(sums['written'])}, unchanged {size(sums['unchanged'])}",
            f"  took {duration(invocation.seconds)}, {rate(total, invocation.seconds)}",
        )
    return Ending(
        values={
            "point": label,
            "dry_run": dry_run,
            "to_move": to_move if dry_run else None,
            **sums,
            "disks": [
                {
                    "number": r.number,
                    "target": r.target,
                    "size": disks[r.number].size,
                    "mode": r.mode,
                    "reason": r.reason,
                    "digest": r.digest,
                    "proof": r.proof,
                    "to_move": r.to_move if dry_run else None,
                    **{n: getattr(r.counters, n) for n in (*sums, "deduplicated")},
                }
                for r in results
            ],
        }
    )
