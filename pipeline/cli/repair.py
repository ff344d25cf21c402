"""`failback repair`: mend what a scrub found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import exitcodes
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import UsageError
from pipeline.units import count, duration

if TYPE_CHECKING:
    from pipeline.mend.relocate import SurvivingDisk
    from pipeline.repository import Repository


@command
def repair(
    invocation: Invocation,
    source: Annotated[
        str, typer.Option("--from", metavar="URL", help="A copy of this repository: objects are put back as they were.")
    ] = "",
    from_disk: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MACHINE@POINT:N=PATH",
            help="A surviving disk: disk N of that point, or what it became since. May be repeated.",
        ),
    ] = None,
    allow_live: Annotated[bool, typer.Option("--allow-live", help="Read a surviving disk that is in use.")] = False,
) -> Ending:
    """Repair what is damaged: from a copy of the repository, from surviving disks, or from what other points hold.

    Goes by what scrubs recorded and by a listing. Ends with code 5 when something stays damaged.
    """
    from pipeline.cli.progress import shown
    from pipeline.cli.scrub import findings_values, show_findings
    from pipeline.mend.repair import repair as mend
    from pipeline.progress import Counters

    repository = invocation.open_repository()
    copy = invocation.open_other(source, lagging=True) if source else None
    survivors = [_survivor(invocation, repository, text, allow_live) for text in from_disk or ()]
    invocation.how_to_go_on = lambda: "what was repaired stays so; run the same command again for the rest"
    with shown(invocation.output) as meter:
        counters = Counters(phase="repair", disk=repository.store.name)
        repaired = mend(repository, copy=copy, survivors=survivors, tick=lambda: meter(counters))
    moved = repaired.relocations
    say = invocation.output.say
    say(
        f"{count(len(repaired.put_back), 'object')} put back from the copy, {len(repaired.from_versions)} from older "
        f"versions; chunks stored again: {moved.from_disks} from disks, "
        f"{moved.from_points} from other points, {moved.from_itself} from damaged packs; "
        f"in {duration(invocation.seconds)}"
    )
    show_findings(invocation, repaired.left)
    left = repaired.left.open
    if left:
        invocation.failed_quietly(f"{count(len(left), 'object')} damaged still, first {left[0].detail}")
    return Ending(
        exitcodes.DAMAGED if left else exitcodes.OK,
        {
            "put_back": [damage.key for damage in repaired.put_back],
            "from_versions": [damage.key for damage in repaired.from_versions],
            "from_disks": moved.from_disks,
            "from_points": moved.from_points,
            "from_damaged_packs": moved.from_itself,
            "relocations": moved.records,
            **findings_values(repaired.left),
        },
    )


def _survivor(invocation: Invocation, repository: Repository, text: str, allow_live: bool) -> SurvivingDisk:
    from manifests.names import parse_point
    from pipeline.catalogue import resolve
    from pipeline.exporters.open import open_exporter
    from pipeline.mend.relocate import SurvivingDisk

    name, equals, path = text.partition("=")
    point, colon, number = name.rpartition(":")
    if not equals or not colon or not path or not number.isdigit():
        raise UsageError(
            f"--from-disk {text} is not understood", remedy="write MACHINE@POINT:N=PATH, such as vm@3:0=/dev/sdb"
        )
    manifest = resolve(repository, parse_point(point)).manifest
    disk = next((disk for disk in manifest.disks if disk.number == int(number)), None)
    if disk is None:
        raise UsageError(
            f"{manifest.label} has no disk {number}",
            remedy=f"it has {', '.join(str(d.number) for d in manifest.disks)}",
        )
    exporter = open_exporter(path, allow_live=allow_live)
    invocation.stack.callback(exporter.close)
    return SurvivingDisk(disk, exporter)
