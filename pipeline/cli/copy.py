"""`failback copy`: recovery points of one repository become points of another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import exitcodes
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import UsageError
from pipeline.units import count, duration, size

if TYPE_CHECKING:
    from manifests.manifest import CopiedFrom
    from pipeline.catalogue import Point
    from pipeline.repository import Repository
    from pipeline.transfer.copy import Copied


@command
def copy(
    invocation: Invocation,
    point: Annotated[
        list[str], typer.Argument(metavar="MACHINE[@POINT]...", help="The latest points, or those named.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="URL", help="The other repository: its address, as for -r.")],
    all_: Annotated[bool, typer.Option("--all", help="All usable points of the machines, oldest first.")] = False,
    chunk_size: Annotated[
        int | None,
        typer.Option("--chunk-size", metavar="KIB", help="Size of a chunk there; fixed once a disk has points there."),
    ] = None,
    to_key_file: Annotated[
        Path | None,
        typer.Option("--to-key-file", metavar="FILE", help="Opens the other repository."),
    ] = None,
    to_passphrase_file: Annotated[
        Path | None, typer.Option("--to-passphrase-file", metavar="FILE", help="A file whose first line opens it.")
    ] = None,
    to_unencrypted: Annotated[
        bool, typer.Option("--to-unencrypted", help="The other repository is not encrypted, and that is meant.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Afterwards read the originals again where digests cannot be compared.")
    ] = False,
) -> Ending:
    """Copy recovery points to another repository. Hardware, times and consistency stay what they are.

    Only what changed since the last copy of a machine is read and sent. Interrupted, the same command goes on.
    """
    from pipeline.cli.progress import shown
    from pipeline.transfer.copy import check_other, copied_points, copy_point, origin_of, verify_copy
    from pipeline.transfer.export_request import ExportOptions

    source = invocation.open_repository()
    chosen = _chosen(source, point, every=all_)
    target = invocation.open_other(to, key_file=to_key_file, passphrase_file=to_passphrase_file, plain=to_unencrypted)
    check_other(source, target)
    settings = invocation.settings
    options = ExportOptions(
        state=settings.state_dir,
        chunk_size=chunk_size << 10 if chunk_size is not None else None,
        memory=settings.memory_mib << 20,
        uploads=settings.parallel,
    )
    invocation.how_to_go_on = lambda: "run the same command again to go on"
    copies: list[Copied] = []
    problems: list[str] = []
    with shown(invocation.output) as meter:
        known: dict[str, dict[CopiedFrom, Point]] = {}
        for found in chosen:
            name = found.manifest.machine.name
            there = known[name] if name in known else known.setdefault(name, copied_points(target, name))
            done = copy_point(source, found, target, options, there=there, watch=meter, tell=invocation.note)
            copies.append(done)
            origin = origin_of(source, found)
            if done.result and any(o.repository == origin.repository and o.sequence > origin.sequence for o in there):
                invocation.warn(
                    f"{done.source} is older than what was copied before, and {name}'s latest point there now"
                )
            there[origin] = done.point
            proof = done.proof
            if verify and not proof:
                wrong = []
                for report in verify_copy(source, found, target, done.point, settings.state_dir, watch=meter):
                    wrong += [f"{done.point.manifest.label}: {problem}" for problem in report.problems]
                    wrong += [f"{done.point.manifest.label}: {n} bytes at {o} differ" for o, n in report.ranges]
                proof = "it was read again and DIFFERS" if wrong else "it was read again and equals the original"
                problems += wrong
            _say(invocation, done, proof)
    for problem in problems:
        invocation.failed_quietly(problem)
        invocation.output.say(problem)
    return Ending(
        exitcodes.VERIFY if problems else exitcodes.OK,
        {"copies": [_values(done) for done in copies], "problems": problems, "verified": verify},
    )


def _chosen(source: Repository, names: list[str], *, every: bool) -> list[Point]:
    """Oldest first, each once."""
    from manifests.names import parse_point
    from pipeline import catalogue

    found: dict[tuple[str, int], Point] = {}
    for name in map(parse_point, names):
        if every and name.sequence is not None:
            raise UsageError(f"--all copies every point of {name.machine}", remedy="leave out the number, or --all")
        for point in catalogue.points(source, name.machine) if every else [catalogue.resolve(source, name)]:
            found[point.manifest.machine.name, point.manifest.sequence] = point
    return [found[key] for key in sorted(found)]


def _say(invocation: Invocation, done: Copied, proof: str) -> None:
    label = done.point.manifest.label
    proof = proof or "the digests cannot be compared: other chunks or keys; --verify reads and compares"
    if done.result is None:
        invocation.output.say(f"{done.source} is there already, as {label}: {proof}")
        return
    disks = done.result.disks
    read, sent = (sum(getattr(d.counters, n) for d in disks) for n in ("read", "sent"))
    invocation.output.say(
        f"{done.source} is copied as {label}: {count(len(disks), 'disk')}, read {size(read)}, sent {size(sent)}, "
        f"in {duration(invocation.seconds)}; {proof}"
    )


def _values(done: Copied) -> dict[str, Any]:
    disks = done.result.disks if done.result else []
    return {
        "source": done.source,
        "point": done.point.manifest.label,
        "new": done.result is not None,
        "resumed": bool(done.result and done.result.resumed),
        "read": sum(d.counters.read for d in disks),
        "sent": sum(d.counters.sent for d in disks),
        "digests_equal": bool(done.proof),
    }
