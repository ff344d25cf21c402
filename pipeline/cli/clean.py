"""`failback clean`: take away what dead commands left at targets."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli import exitcodes
from pipeline.cli.grounds import ground_of
from pipeline.cli.home_for_good import check_not_home
from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.mapped import MapOption, read_mapping
from pipeline.errors import UsageError
from pipeline.units import count


@command
def clean(
    invocation: Invocation,
    machine: Annotated[str, typer.Argument(metavar="[MACHINE]", help="Only of this machine.")] = "",
    to: Annotated[str, typer.Option("--to", metavar="TARGET", help="Only at this target.")] = "",
    mapping: MapOption = "",
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Take away the machine and its disks too, though they are whole, and what it wrote since it was "
            "imported. After `stop --keep` they are the only copy of that: then it also needs --force.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="With --all: also a machine that came home for good.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
) -> Ending:
    """Remove what killed or failed commands left at targets: half-made disks, rehearsals, places of verifications.

    Machines and disks that are whole stay, and what a command works on right now is not touched.
    """
    from pipeline.home.clean import clean as cleaned

    if everything and not (machine and to):
        raise UsageError(
            "--all needs a machine and a target", remedy="write `failback clean MACHINE --to TARGET --all`"
        )
    if force and not everything:
        raise UsageError("--force goes with --all", remedy="leave it out, or add --all")
    ground = ground_of(invocation, read_mapping(mapping))
    if everything and not force:
        check_not_home(ground.repository, machine, to)
    found = list(cleaned(ground, machine=machine, target=to, everything=everything, kept_too=force, dry_run=dry_run))
    words = {"remove": "would remove" if dry_run else "removed", "drop": "would drop" if dry_run else "dropped"}
    words["give back"] = "would give back" if dry_run else "gave back"
    rows = [(left.name, left.target, words.get(left.action, left.action), left.what) for left in found]
    if rows:
        invocation.output.table(("place", "target", "action", "what"), rows)
    done = [left for left in found if left.action in words]
    if not done:
        invocation.output.say("there is nothing to remove" + " at the others" * any(left.error for left in found))
    else:
        invocation.output.say(f"{count(len(done), 'place')} {'to clean' if dry_run else 'cleaned'}")
    errors = [left.error for left in found if left.error]
    for told in dict.fromkeys((error.message, error.remedy) for error in errors):
        invocation.output.error(*told)
    return Ending(
        errors[0].exit_code if errors else exitcodes.OK,
        values={
            "dry_run": dry_run,
            "places": [
                {"name": left.name, "target": left.target, "action": left.action, "what": left.what} for left in found
            ],
        },
    )
