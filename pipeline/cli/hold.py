"""`failback hold` and `failback release`: a point that somebody needs is neither forgotten nor collected."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import CatalogueError, UsageError

_Holder = Annotated[str, typer.Option("--as", metavar="NAME", help="Who holds it: a-z, 0-9, '-'.")]


@command
def hold(
    invocation: Invocation,
    point: Annotated[str, typer.Argument(metavar="MACHINE[@POINT]", help="The latest point, or the one named.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="What it is needed for.")],
    holder: _Holder = "manual",
) -> Ending:
    """Hold a point until `failback release`: `forget` refuses it, policies keep it. A holder holds one point of a
    machine: holding another one lets the first go."""
    from manifests.names import parse_point
    from pipeline.catalogue import resolve
    from pipeline.collect import record

    if not reason.strip():
        raise UsageError("--reason is empty", remedy="say in a few words what the point is needed for")
    repository = invocation.open_repository()
    found = resolve(repository, parse_point(point))
    record.hold(repository, found, holder=holder, reason=reason.strip())
    invocation.output.say(f"{found.manifest.label} is held by {holder}")
    return Ending(values={"point": found.manifest.label, "holder": holder})


@command
def release(
    invocation: Invocation,
    machine: Annotated[str, typer.Argument(metavar="MACHINE", help="Whose point: the name alone.")],
    holder: Annotated[str, typer.Argument(metavar="[NAME]", help="Who held it.")] = "manual",
) -> Ending:
    """Let go of a point that was held."""
    from pipeline.collect import record

    if "@" in machine:
        raise UsageError(
            f"{machine} is a point: what is let go of is whatever the holder holds of the machine",
            remedy=f"give its name alone: failback release {machine.partition('@')[0]}",
        )
    repository = invocation.open_repository()
    if not record.release(repository, machine, holder):
        held = ", ".join(f"{h.holder} ({machine}@{h.sequence})" for h in record.holds(repository, machine))
        raise CatalogueError(
            f"{holder} holds no point of {machine}", remedy=f"held by: {held}" if held else "no point of it is held"
        )
    invocation.output.say(f"{holder} holds no point of {machine} any more")
    return Ending(values={"machine": machine, "holder": holder})
