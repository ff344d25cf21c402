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
    from pipeline.catalogue import sequences
    from pipeline.collect.recall import recall

    name = parse_point(point)
    if name.sequence is None:
        raise UsageError(f"{point} does not say which point", remedy="write its number")
    repository = invocation.open_repository()
    again = recall(repository, name.machine, name.sequence)
    invocation.output.say(f"{name.machine}@{name.sequence} is back, as {again.label}")
    between = range(name.sequence + 1, again.sequence)
    if later := [s for s in sequences(repository, name.machine) if s in between]:
        invocation.warn(
            f"{again.label} is the newest now, and older than {name.machine}@{later[-1]}: name the number of the point"
            f" you want, or export {name.machine} again"
        )
    return Ending(values={"point": again.label, "was": f"{name.machine}@{name.sequence}"})
