"""`failback gc`: free the space of what no recovery point needs."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.errors import UsageError
from pipeline.units import count, duration, size
from pipeline.verify.duration import parse_duration

if TYPE_CHECKING:
    from pipeline.collect.plan import Kept, Plan

SHOWN = 20


@command
def gc(
    invocation: Invocation,
    apply: Annotated[bool, typer.Option("--apply", help="Delete; without it only say what would be.")] = False,
    grace: Annotated[
        str,
        typer.Option(metavar="DURATION", help="Leave alone what is younger, and writers silent for less; 1h at least."),
    ] = "24h",
    keep_versions: Annotated[
        bool,
        typer.Option(
            "--keep-versions", help="In a bucket that keeps versions: only hide what is deleted, and free no space."
        ),
    ] = False,
) -> Ending:
    """Find what no recovery point needs any more and, with --apply, delete it. Writers may go on meanwhile.

    Interrupted, the same command goes on. Anything that is not as it should be (a point missing or unreadable, a
    listing that fails or leaves something out) ends it before anything is deleted. In a bucket that keeps versions all
    versions of what nothing needs are deleted; those that are locked stay, and are reported.
    """
    from pipeline.cli.progress import shown
    from pipeline.collect.collector import Collection

    try:
        seconds = parse_duration(grace)
    except ValueError as error:
        raise UsageError(f"--grace {grace}: {error}", remedy="write, for instance, 36h") from error
    repository = invocation.open_repository()
    invocation.how_to_go_on = lambda: "what was not deleted yet is found again: run the same command again"
    with shown(invocation.output) as meter:
        plan = Collection(
            repository,
            grace=timedelta(seconds=seconds),
            apply=apply,
            keep_versions=keep_versions,
            parallel=invocation.settings.parallel,
            watch=meter,
            tell=invocation.warn,
        ).run()
    _say(invocation, plan, applied=apply)
    return Ending(values={"applied": apply, "freed": plan.freed if apply else 0, "plan": plan.as_json()})


def _say(invocation: Invocation, plan: Plan, *, applied: bool) -> None:
    say = invocation.output.say
    say(f"{count(plan.points, 'point')} of {count(plan.machines, 'machine')}")
    rows = [
        (what, *(f"{share.count:,}, {size(share.bytes)}" for share in (kept.live, kept.doomed, kept.young, kept.held)))
        for what, kept in (("packs", plan.packs), ("index objects", plan.pages))
        if kept is not None
    ]
    invocation.output.table(("", "LIVE", "DOOMED", "YOUNG", "HELD"), rows, right=(1, 2, 3, 4))
    say(
        f"sparse: {count(plan.sparse.count, 'live pack')} of {size(plan.sparse.bytes)}, of which no point uses more "
        f"than 40 %; {size(plan.sparse_dead)} in them may be dead. Exports in the background empty them bit by bit"
    )
    _list(invocation, "kept for writers that are alive, or may go on", plan.sessions)
    _list(
        invocation, "given up, so that nothing can be committed there" if applied else "would be given up", plan.fenced
    )
    _list(invocation, "forgotten, and still kept", plan.points_waiting)
    _list(invocation, "manifests of forgotten points" + (" deleted" if applied else ""), plan.points_gone)
    _list(invocation, "old sessions" + (" deleted" if applied else ""), plan.sessions_gone)
    for label in plan.unfenced:
        machine = label.rpartition("@")[0]
        invocation.warn(
            f"{label} was begun and never ended; this store has no create-only writes, so it cannot be given up, and "
            f"all that was stored since is kept: export {machine} once more, or delete sessions/…/{label} by hand when "
            "no such export runs anywhere"
        )
    for kept in (plan.packs, plan.pages):
        if kept is not None and kept.foreign:
            invocation.warn(f"{count(kept.foreign, 'object')} among packs or pages are none of failback: left alone")
    if plan.hidden is not None and plan.hidden.bytes:
        say(
            f"besides, {size(plan.hidden.bytes)} of older versions, and of {count(plan.hidden.count, 'object')} that a "
            "deletion hides"
        )
    if plan.versioned and plan.hidden is None:
        invocation.warn("the bucket keeps versions: what is deleted is hidden, and takes space as before")
    if not applied:
        say(f"nothing was deleted; `failback gc --apply` frees {size(plan.doomed)}{_why_not(plan)}")
    else:
        _locked(invocation, plan)
        done = f"hid {size(plan.doomed)}" if plan.versioned and plan.hidden is None else f"freed {size(plan.freed)}"
        say(f"{done} in {duration(invocation.seconds)}{_why_not(plan)}")


def _locked(invocation: Invocation, plan: Plan) -> None:
    erased = plan.erased
    if erased is None or not erased.locked:
        return
    until = []
    if erased.first is not None and erased.last is not None:
        first, last = (f"{at:%Y-%m-%d %H:%M} UTC" for at in (erased.first.astimezone(UTC), erased.last.astimezone(UTC)))
        until.append(f"until {first}" + (f", the last until {last}" if last != first else ""))
    if erased.endless:
        until.append(f"{erased.endless} until somebody takes a legal hold away")
    invocation.output.say(
        f"{count(erased.locked, 'version')} of {size(erased.locked_bytes)} are locked {'; '.join(until)}: "
        "a later collection takes them"
    )


def _why_not(plan: Plan) -> str:
    """Why what is not needed is not freed."""
    young = sum(_bytes(k, "young") for k in (plan.packs, plan.pages))
    held = sum(_bytes(k, "held") for k in (plan.packs, plan.pages))
    why = [f"{size(young)} are younger than {duration(plan.grace)}"] * bool(young)
    why += [f"{size(held)} were stored since a writer began that may still need them"] * bool(held)
    return f" ({'; '.join(why)})" if why else ""


def _bytes(kept: Kept | None, name: str) -> int:
    return int(getattr(kept, name).bytes) if kept else 0


def _list(invocation: Invocation, what: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        invocation.output.say(f"{what}: {', '.join(names[:SHOWN])}{more}")
