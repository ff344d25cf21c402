"""`failback verify`: is everything of a recovery point there, and is it right?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import exitcodes
from pipeline.cli.checking import Checking, ChecksOption, HookOption, JunitOption, PictureOption
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.mapped import MapOption
from pipeline.cli.noted import note_verified
from pipeline.errors import UsageError
from pipeline.units import count, duration, size

if TYPE_CHECKING:
    from manifests.manifest import Disk
    from pipeline.catalogue import Point
    from pipeline.repository import Repository
    from pipeline.verify.report import VerifyReport

TO = "qemu"
"""Where --boot boots unless said otherwise."""
SHOWN = 50
"""Problems and ranges printed for people; JSON has all."""


@command
def verify(
    invocation: Invocation,
    point: Annotated[str, typer.Argument(metavar="MACHINE[@POINT]", help="The latest point, or the one named.")],
    read: Annotated[bool, typer.Option("--read", help="Read, decode and hash every chunk.")] = False,
    disk: Annotated[
        str, typer.Option(metavar="PATH", help="Does this disk equal the point? Prints the ranges that differ.")
    ] = "",
    number: Annotated[
        int | None, typer.Option(metavar="N", help="Which disk of the point PATH is; needed when it has several.")
    ] = None,
    image_format: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="Format of PATH when its extension does not say it."),
    ] = None,
    allow_live: Annotated[bool, typer.Option("--allow-live", help="Read PATH though it is in use.")] = False,
    boot: Annotated[
        bool, typer.Option("--boot", help="Boot it on a layer that is thrown away, without network, and check it.")
    ] = False,
    to: Annotated[
        str,
        typer.Option("--to", metavar="TARGET", help="With --boot: where, a target that has machines.", show_default=TO),
    ] = "",
    mapping: MapOption = "",
    instant: Annotated[
        bool, typer.Option("--instant", help="With --boot: start from the repository, without restoring the disks.")
    ] = False,
    checks: ChecksOption = "",
    hook: HookOption = None,
    junit: JunitOption = "",
    picture: PictureOption = "",
) -> Ending:
    """Verify a recovery point by listing (every object there, of the right size), by reading, against a disk, or by
    booting it."""
    from manifests.names import parse_point
    from pipeline.catalogue import resolve

    if bool(disk) + read + boot > 1:
        raise UsageError("--read, --disk and --boot are different checks", remedy="run one after the other")
    if not boot and (to or mapping or instant or checks or hook or junit or picture):
        raise UsageError("a machine is checked only when it is booted", remedy="add --boot")
    if number is not None and not disk:
        raise UsageError("--number needs --disk", remedy="name the disk to compare")
    name = parse_point(point)
    if boot:
        from pipeline.cli.tried import verify_by_booting

        checking = Checking(
            invocation,
            checks=checks,
            hooks=hook or (),
            junit=junit,
            picture=picture,
            artifacts=invocation.artifacts(name.machine),
            always=True,
        )
        return verify_by_booting(invocation, name, to or TO, mapping, checking, instant=instant)
    repository = invocation.open_repository()
    found = resolve(repository, name)
    parallel = min(6, invocation.settings.parallel)

    from pipeline.cli.progress import shown

    with shown(invocation.output) as meter:
        if disk:
            from pipeline.exporters.open import open_exporter
            from pipeline.verify.disk import verify_disk

            which = _which(found, number)
            exporter = open_exporter(disk, image_format=image_format, allow_live=allow_live)
            invocation.stack.callback(exporter.close)
            report = verify_disk(repository, found, which, exporter, parallel=parallel, watch=meter)
        elif read:
            from pipeline.verify.reading import verify_reading

            report = verify_reading(repository, found, parallel=parallel, watch=meter)
        else:
            from pipeline.verify.listing import verify_listing

            report = verify_listing(repository, found, watch=meter)
    if not disk:
        from pipeline.verify.lineage import check_lineage

        report.problems += check_lineage(repository, found)
    return _ending(invocation, repository, found, report, read=read)


def _which(point: Point, number: int | None) -> Disk:
    disks = point.manifest.disks
    if number is None and len(disks) == 1:
        return disks[0]
    for disk in disks:
        if disk.number == number:
            return disk
    numbers = ", ".join(str(d.number) for d in disks)
    if number is None:
        raise UsageError(f"{point.manifest.label} has {len(disks)} disks", remedy=f"give --number, one of {numbers}")
    raise UsageError(f"{point.manifest.label} has no disk {number}", remedy=f"it has {numbers}")


def _ending(
    invocation: Invocation, repository: Repository, point: Point, report: VerifyReport, *, read: bool
) -> Ending:
    label = point.manifest.label
    say = invocation.output.say
    if report.ok:
        if read:
            note_verified(invocation, repository, point, "read")
        say(f"{label} is good: {report.checked}, in {duration(invocation.seconds)}")
    else:
        say(f"{label} is NOT good: {report.checked}")
        for problem in report.problems[:SHOWN]:
            say(f"  {problem}")
        for offset, length in report.ranges[:SHOWN]:
            say(f"  differs: {length} bytes at {offset}")
        hidden = max(len(report.problems) - SHOWN, 0) + max(len(report.ranges) - SHOWN, 0)
        if hidden:
            say(f"  and {hidden} more; --json lists all")
        total = sum(length for _offset, length in report.ranges)
        if total:
            say(f"  {size(total)} differ in {count(len(report.ranges), 'range')}")
        invocation.failed_quietly(f"{label} did not pass: {_reason(report)}")
    return Ending(
        exitcodes.OK if report.ok else exitcodes.VERIFY,
        {"point": label, "checked": report.checked, "problems": report.problems, "ranges": report.ranges},
    )


def _reason(report: VerifyReport) -> str:
    if report.problems:
        return report.problems[0]
    return f"{count(len(report.ranges), 'range')} differ"
