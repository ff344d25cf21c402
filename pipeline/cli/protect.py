"""`failback protect`: nobody deletes what a point needs before a day."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import exitcodes
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
    from pipeline.guard.retention import Locks, Protected, day_after, live_points, objects_of
    from pipeline.store.address import parse_address

    name = parse_point(point)
    repository = invocation.open_repository()
    locks = Locks(parse_address(invocation.address))
    invocation.stack.callback(locks.close)
    if "@" in point:
        found = [catalogue.resolve(repository, name)]
    else:
        found = live_points(repository, locks.versions, name.machine)
    invocation.how_to_go_on = lambda: "what was locked stays locked; the same command goes on"
    objects, until, done = objects_of(repository, found), day_after(days), Protected()
    for done in locks.extend(objects, until, lock.mode):  # noqa: B007 - the last tally is the result
        pass
    invocation.output.say(
        f"{count(len(objects.keys), 'object')} of {count(len(found), 'point')} of {name.machine} are locked until "
        f"{until:%Y-%m-%d} at least: {done.extended} now, {done.already} were before"
    )
    for keys, what in (
        (done.hidden, "deleted by somebody; older versions are locked, and `failback repair` puts them back"),
        (
            done.rewritten,
            "written more than once; all versions are locked. `failback scrub` tells whether the newest fits",
        ),
    ):
        if keys:
            invocation.warn(f"{keys[0]}{f' and {len(keys) - 1} more' if keys[1:] else ''}: {what}")
    if done.missing:
        lost = f"{count(len(done.missing), 'object')} that points need are missing, first {done.missing[0]}"
        invocation.warn(f"{lost}: `failback verify` says what is damaged")
        invocation.failed_quietly(lost)
    return Ending(
        exitcodes.DAMAGED if done.missing else exitcodes.OK,
        {
            "points": [p.manifest.label for p in found],
            "until": until.isoformat(),
            "extended": done.extended,
            "already": done.already,
            "hidden": done.hidden,
            "rewritten": done.rewritten,
            "missing": done.missing,
        },
    )
