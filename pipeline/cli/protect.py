"""`failback protect`: nobody deletes what a point needs before a day."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.units import count

if TYPE_CHECKING:
    from pipeline.guard.retention import Mode


class LockName(StrEnum):
    """Modes of object lock."""

    GOVERNANCE = "governance"
    COMPLIANCE = "compliance"

    @property
    def mode(self) -> Mode:
        return "COMPLIANCE" if self is LockName.COMPLIANCE else "GOVERNANCE"


@command
def protect(
    invocation: Invocation,
    point: Annotated[str, typer.Argument(metavar="MACHINE[@POINT]", help="All its live points, or the one named.")],
    days: Annotated[int, typer.Option(min=1, max=36500, metavar="N", help="Locked for at least N days from today.")],
    lock: Annotated[
        LockName,
        typer.Option(help="For what is not locked yet: governance yields to a special right, compliance to nobody."),
    ] = LockName.GOVERNANCE,
) -> Ending:
    """Lock the objects that live points use, in a bucket with object lock; locks only ever get longer.

    Interrupted, the same command goes on.
    """
    from manifests.names import parse_point
    from pipeline import catalogue
    from pipeline.guard.retention import Locks, Protected, day_after, objects_of
    from pipeline.store.address import parse_address

    name = parse_point(point)
    repository = invocation.open_repository()
    if "@" in point:
        found = [catalogue.resolve(repository, name)]
    else:
        found = list(catalogue.points(repository, name.machine))
    locks = Locks(parse_address(invocation.address))
    invocation.stack.callback(locks.close)
    invocation.how_to_go_on = lambda: "what was locked stays locked; the same command goes on"
    keys, until, done = objects_of(repository, found), day_after(days), Protected()
    for done in locks.extend(keys, until, lock.mode):  # noqa: B007 - the last tally is the result
        pass
    invocation.output.say(
        f"{count(len(keys), 'object')} of {count(len(found), 'point')} of {name.machine} are locked until "
        f"{until:%Y-%m-%d} at least: {done.extended} now, {done.already} were before"
    )
    return Ending(
        values={
            "points": [p.manifest.label for p in found],
            "until": until.isoformat(),
            "extended": done.extended,
            "already": done.already,
        }
    )
