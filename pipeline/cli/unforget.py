"""`failback unforget`: a forgotten point becomes a point again."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import UsageError


@command
def unforget(
    invocation: Invocation,
    point: Annotated[str, typer.Argument(metavar="MACHINE@POINT", help="The forgotten point, by its number.")],
) -> Ending:
    """Bring a forgotten point back, within a day: it is committed again, under the machine's next number."""
    from manifests.names import parse_point
    from pipeline.collect.recall import recall

    name = parse_point(point)
    if name.sequence is None:
        raise UsageError(f"{point} does not say which point", remedy="write its number")
    again = recall(invocation.open_repository(), name.machine, name.sequence)
    invocation.output.say(f"{name.machine}@{name.sequence} is back, as {again.label}")
    return Ending(values={"point": again.label, "was": f"{name.machine}@{name.sequence}"})
