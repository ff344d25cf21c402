"""`failback import`: a recovery point becomes disks again, or a machine that runs and is verified."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.arrived import ending_of, forecast_ending
from pipeline.cli.checking import Checking, ChecksOption, HookOption, JunitOption, PictureOption
from pipeline.cli.grounds import ground_of
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.mapped import MapOption, ToOption, read_mapping
from pipeline.cli.noted import note_staged
from pipeline.cli.tried import CLEAN_UP_SECONDS
from pipeline.errors import UsageError
from pipeline.units import size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.catalogue import Point
    from pipeline.cli.progress import Meter
    from pipeline.home.arrival import Arrival, Verify
    from pipeline.home.site import Site
    from pipeline.wanted import Wanted


@command
def import_(
    invocation: Invocation,
    point: Annotated[str, typer.Argument(metavar="MACHINE[@POINT]", help="The latest point, or the one named.")],
    to: ToOption = "files",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for disk images, named MACHINE-disk0.raw and so on.")
    ] = None,
    image_format: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="Of the disks; files: raw, qcow2, vmdk or vmdk-stream.")
    ] = "",
    seed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DISK",
            help="A surviving disk: what it still has is not fetched. Only read. May be repeated. On vmware: its "
            "path on a datastore, or a machine that is off, for all of its disks.",
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N=DEVICE",
            help="Write disk N onto a block device, PATH:size=BYTES or PATH:serial=TEXT, if it has that size or "
            "serial. All of it is overwritten.",
        ),
    ] = None,
    mapping: MapOption = "",
    boot: Annotated[
        bool | None,
        typer.Option(
            "--boot/--no-boot",
            help="Switch the machine on. By default it is when checks, --picture or --instant ask for it.",
        ),
    ] = None,
    instant: Annotated[
        bool, typer.Option("--instant", help="Start from the repository at once; the disks are filled behind.")
    ] = False,
    rehearse: Annotated[
        bool,
        typer.Option(
            "--rehearse", help="Only try it out: on a layer that is thrown away, without network; the disks stay."
        ),
    ] = False,
    checks: ChecksOption = "",
    hook: HookOption = None,
    junit: JunitOption = "",
    picture: PictureOption = "",
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="Leave the machine on though a required check failed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how much would move, and write nothing.")] = False,
) -> Ending:
    """Bring a recovery point home: its disks, proved to be equal to it, and on most targets its machine.

    The machine is built, and with checks switched on, verified and left running. A second import of a later point into
    the same place moves only what differs. Interrupted, the same command goes on.
    """
    from manifests.names import parse_point

    name = parse_point(point)
    disks = {number: {"device": text} for number, text in _devices(device or []).items()}
    mapped = read_mapping(mapping, format=image_format or None, disks=disks or None)
    checking = Checking(
        invocation,
        checks=checks,
        hooks=hook or (),
        junit=junit,
        picture=picture,
        artifacts=invocation.artifacts(name.machine),
        always=rehearse,
    )
    switched_on = (checking.asked or instant) if boot is None else boot
    _check_boot(rehearse=rehearse, boot=boot, checking=checking, instant=instant)

    from pipeline.catalogue import resolve
    from pipeline.cli.progress import shown
    from pipeline.home.site import open_site
    from pipeline.wanted import resolve as resolve_mapping

    with shown(invocation.output) as meter:
        ground = ground_of(invocation, mapped, watch=meter, out=out, seeds=tuple(seed or ()))
        found = resolve(ground.repository, name)
        _check_numbers(disks, found)
        wanted = resolve_mapping(mapped, found.manifest, to)
        with open_site(ground, to, found.manifest.machine.name, "import") as site:
            _check_machines(site, asked=switched_on or rehearse)
            if switched_on or rehearse:
                checking.check_reachable(wanted)
            invocation.how_to_go_on = lambda: _how_to_go_on(site, meter, dry_run=dry_run)
            if dry_run:
                return forecast_ending(invocation, site, found, wanted, rehearsal=rehearse, boots=switched_on)
            if site.abilities.machines:
                note_staged(invocation, site, found)
            if rehearse:
                invocation.grace_seconds = CLEAN_UP_SECONDS
            arrival = _arrive(
                site,
                found,
                wanted,
                rehearsal=rehearse,
                boot=switched_on,
                instant=instant,
                keep_running=keep_running,
                verify=_verify(checking, site, wanted) if (checking.asked and switched_on) or rehearse else None,
                since=invocation.started,
            )
    return ending_of(invocation, found, to, arrival, checking, rehearsal=rehearse)


def _arrive(
    site: Site,
    point: Point,
    wanted: Wanted,
    *,
    rehearsal: bool,
    boot: bool,
    instant: bool,
    keep_running: bool,
    verify: Verify | None,
    since: float,
) -> Arrival:
    from pipeline.home.bring import bring_disks, bring_home
    from pipeline.home.rehearse import rehearse
    from pipeline.laps import Laps

    laps = Laps(since)
    laps.lap("start")
    if not site.abilities.machines:
        return bring_disks(site, point, wanted, laps)
    if rehearsal:
        return rehearse(site, point, wanted, instant=instant, verify=verify, laps=laps)
    return bring_home(
        site, point, wanted, boot=boot, instant=instant, verify=verify, keep_running=keep_running, laps=laps
    )


def _how_to_go_on(site: Site, meter: Meter, *, dry_run: bool) -> str:
    if dry_run:
        return ""
    record = site.folder.record
    if record is not None and record.doing.startswith("rehearsal"):
        return "nothing is left running; run the same command again to go on"
    if record is not None and record.whole:
        return (
            f"run the same command again to go on; if {site.machine} runs it goes on running, and "
            f"`failback stop {site.machine} --to {site.target}` switches it off"
        )
    done = sum(counters.written for counters in meter.all)
    return "run the same command again to go on; until it ends, the disks are not whole" + (
        f" ({size(done)} are written already)" if done else ""
    )


def _verify(checking: Checking, site: Site, wanted: Wanted) -> Verify:
    return lambda importer, build, fresh: checking.on(wanted.hardware, site.control, importer, build, fresh=fresh)


def _check_boot(*, rehearse: bool, boot: bool | None, checking: Checking, instant: bool) -> None:
    if rehearse and boot is False:
        raise UsageError("--rehearse tries a machine out: it cannot go with --no-boot", remedy="leave one away")
    if boot is False and checking.asked:
        raise UsageError("checks need a machine that runs", remedy="leave --no-boot or the checks away")
    if boot is False and instant:
        raise UsageError("--instant starts the machine: it cannot go with --no-boot", remedy="leave one away")


def _check_machines(site: Site, *, asked: bool) -> None:
    if asked and not site.abilities.machines:
        raise UsageError(
            f"--to {site.target} makes disks, no machines: there is nothing to switch on",
            remedy="name a target that has machines, such as --to qemu",
        )


def _check_numbers(given: Iterable[int], point: Point) -> None:
    numbers = {disk.number for disk in point.manifest.disks}
    if unknown := sorted(set(given) - numbers):
        raise UsageError(
            f"{point.manifest.label} has no disk {unknown[0]}",
            remedy=f"it has {len(numbers)} disk(s): {', '.join(map(str, sorted(numbers)))}",
        )


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
