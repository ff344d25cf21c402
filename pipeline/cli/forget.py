"""`failback forget`: give up a recovery point."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import UsageError
from pipeline.units import moment


@command
def forget(
    invocation: Invocation,
    point: Annotated[str, typer.Argument(metavar="MACHINE@POINT", help="The point to give up, by its number.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the repository.")],
    force: Annotated[bool, typer.Option("--force", help="Also when it is the machine's last usable point.")] = False,
) -> Ending:
    """Forget a recovery point: it can no longer be used, and a later collection frees its space."""
    from manifests.names import parse_point
    from pipeline import catalogue

    name = parse_point(point)
    if name.sequence is None:
        raise UsageError(
            f"{point} does not say which point", remedy=f"write its number; `failback list {name.machine}` shows them"
        )
    if not reason.strip():
        raise UsageError("--reason is empty", remedy="say in a few words why this point is given up")
    repository = invocation.open_repository()
    found = catalogue.resolve(repository, name)
    if not force:
        gone = catalogue.forgotten(repository, name.machine) | {name.sequence}
        others = [s for s in reversed(catalogue.sequences(repository, name.machine)) if s not in gone]
        if not any(catalogue.load(repository, name.machine, sequence) for sequence in others):
            raise UsageError(
                f"{found.manifest.label} is the last point from which {name.machine} can be restored",
                remedy="export a newer one first, or say --force",
            )
    catalogue.forget(repository, found, reason=reason.strip())
    invocation.output.say(f"{found.manifest.label} of {moment(found.manifest.time)} is forgotten")
    return Ending(values={"point": found.manifest.label, "reason": reason.strip()})
