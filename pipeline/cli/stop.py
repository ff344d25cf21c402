"""`failback stop`: switch a machine at a target off, and decide about what it wrote."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.grounds import ground_of
from pipeline.cli.home_for_good import check_not_home
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.mapped import MapOption, ToOption, read_mapping
from pipeline.errors import UsageError


@command
def stop(
    invocation: Invocation,
    machine: Annotated[str, typer.Argument(metavar="MACHINE", help="Its name at the source.")],
    to: ToOption = "qemu",
    mapping: MapOption = "",
    seconds: Annotated[
        float, typer.Option(metavar="S", min=0, help="How long it may take to shut down by itself. 0: cut its power.")
    ] = 60.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Then merge what it wrote into its disks: it came home for good.")
    ] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Then throw away what it wrote since it was imported; the disks stay.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --drop: also of a machine that a run brought home for good.")
    ] = False,
) -> Ending:
    """Stop a machine that was brought home: gracefully, then hard.

    What it wrote stays in its layer, and `failback import` starts it again, unless --keep or --drop decides about it.
    """
    from pipeline.home.site import open_site
    from pipeline.home.stop import Layer, stop_machine

    if keep and drop:
        raise UsageError("--keep and --drop are two decisions", remedy="leave one away")
    if force and not drop:
        raise UsageError("--force goes with --drop", remedy="leave it out, or add --drop")
    layer: Layer = "keep" if keep else "drop" if drop else "leave"
    invocation.grace_seconds += seconds
    ground = ground_of(invocation, read_mapping(mapping))
    if drop and not force:
        check_not_home(ground.repository, machine, to)
    with open_site(ground, to, machine, "import") as site:
        done = stop_machine(site, seconds=seconds, layer=layer)
    state = {"leave": "", "keep": "; what it wrote is in its disks for good", "drop": "; what it wrote is thrown away"}
    invocation.output.say(f"{machine} {'is off' if done.was_running else 'was off'} at {to}{state[layer]}")
    return Ending(
        values={
            "machine": machine,
            "target": to,
            "was_running": done.was_running,
            "power": done.seen.power,
            "reason": done.seen.reason,
            "layer": layer,
        }
    )
