"""`failback forget`: give up a recovery point, or all that a policy does not keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.tags import parse_tags
from pipeline.errors import UsageError
from pipeline.units import moment

if TYPE_CHECKING:
    from manifests.names import PointName
    from pipeline.catalogue import Point
    from pipeline.collect.retention import Policy
    from pipeline.repository import Repository

_POLICY = "Policy"
_Count = Annotated[int, typer.Option(min=0, metavar="N", rich_help_panel=_POLICY)]


@command
def forget(
    invocation: Invocation,
    point: Annotated[
        str, typer.Argument(metavar="MACHINE[@POINT]", help="A point, by its number; with a policy a machine.")
    ] = "",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the repository.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Also when it is the machine's last usable point.")] = False,
    missing: Annotated[
        bool, typer.Option("--missing", help="Also when its manifest is gone or damaged: it is lost for good.")
    ] = False,
    keep_last: _Count = 0,
    keep_hourly: _Count = 0,
    keep_daily: _Count = 0,
    keep_weekly: _Count = 0,
    keep_monthly: _Count = 0,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Only points with this tag.", rich_help_panel=_POLICY),
    ] = None,
    all_machines: Annotated[
        bool, typer.Option("--all-machines", help="Each machine by itself.", rich_help_panel=_POLICY)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be forgotten.", rich_help_panel=_POLICY)
    ] = False,
) -> Ending:
    """Forget a recovery point, or with --keep-… all that the policy does not keep: they can no longer be used, and a
    later `failback gc` frees their space. For a day they can be brought back with `failback unforget`.

    A policy never forgets a machine's newest point, its last verified one, and points that are held.
    """
    from manifests.names import parse_point
    from pipeline.collect.retention import Policy

    policy = Policy(keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly)
    if not policy and (tag or all_machines or dry_run):
        raise UsageError("there is no policy", remedy="say what is kept, such as --keep-daily 7 --keep-monthly 12")
    if all_machines == bool(point):
        raise UsageError("name a machine, or say --all-machines", remedy="one of the two")
    if not policy and not reason.strip():
        raise UsageError("--reason is empty", remedy="say in a few words why this point is given up")
    name = parse_point(point) if point else None
    if policy:
        if name is not None and "@" in point:
            raise UsageError("a policy is about a machine, not one point", remedy=f"leave @ away: {name.machine}")
        return _by_policy(invocation, name.machine if name else "", policy, parse_tags(tag or []), reason, dry_run)
    if name is None or name.sequence is None:
        raise UsageError(
            f"{point} does not say which point", remedy="write its number; `failback list MACHINE` shows them"
        )
    return _one(invocation, name, reason.strip(), force=force, missing=missing)


def _one(invocation: Invocation, name: PointName, reason: str, *, force: bool, missing: bool) -> Ending:
    from pipeline import catalogue
    from pipeline.collect.record import holds
    from pipeline.collect.sessions import check_was_taken

    repository = invocation.open_repository()
    if missing:
        check_was_taken(repository, name)
        catalogue.forget_lost(repository, name, reason=reason)
        invocation.output.say(f"{name.machine}@{name.sequence} is given up for lost")
        return Ending(values={"point": f"{name.machine}@{name.sequence}", "reason": reason})
    found = catalogue.resolve(repository, name)
    for hold in holds(repository, name.machine):
        if hold.sequence == name.sequence:
            raise UsageError(
                f"{found.manifest.label} is held by {hold.holder}: {hold.reason} (since {hold.time}, {hold.by})",
                remedy=f"when it is not needed there any more: `failback release {name.machine} {hold.holder}`",
            )
    if not force:
        gone = catalogue.forgotten(repository, name.machine) | {found.manifest.sequence}
        others = [s for s in reversed(catalogue.sequences(repository, name.machine)) if s not in gone]
        if not any(catalogue.load(repository, name.machine, sequence) for sequence in others):
            raise UsageError(
                f"{found.manifest.label} is the last point from which {name.machine} can be restored",
                remedy="export a newer one first, or say --force",
            )
    catalogue.forget(repository, found, reason=reason)
    invocation.output.say(f"{found.manifest.label} of {moment(found.manifest.time)} is forgotten")
    return Ending(values={"point": found.manifest.label, "reason": reason})


def _by_policy(
    invocation: Invocation, machine: str, policy: Policy, tags: dict[str, str], reason: str, dry_run: bool
) -> Ending:
    from pipeline import catalogue
    from pipeline.collect.record import holds, verified
    from pipeline.collect.retention import judge

    repository = invocation.open_repository()
    rows: list[tuple[str, ...]] = []
    found: list[dict[str, Any]] = []
    for name in [machine] if machine else catalogue.machines(repository):
        points = _usable(repository, name)
        held = {h.sequence: h.holder for h in holds(repository, name)}
        for judged in judge(points, policy, verified=verified(repository, name), held=held, tags=tags):
            manifest = judged.point.manifest
            action = "keep" if judged.reasons else "forget"
            shown = ", ".join(f"{k}={v}" for k, v in manifest.tags.items())
            rows.append((manifest.label, moment(manifest.time), action, ", ".join(judged.reasons), shown))
            found.append({"point": manifest.label, "action": action, "reasons": judged.reasons})
            if action == "forget" and not dry_run:
                catalogue.forget(repository, judged.point, reason=reason.strip() or f"not kept by {policy}")
    invocation.output.table(("POINT", "TIME", "ACTION", "WHY", "TAGS"), rows)
    count = sum(f["action"] == "forget" for f in found)
    invocation.output.say(
        f"{count} of {len(found)} points {'would be' if dry_run else 'are'} forgotten"
        + ("" if dry_run or not count else "; `failback gc --apply` frees their space when a day has passed")
    )
    return Ending(values={"dry_run": dry_run, "points": found})


def _usable(repository: Repository, machine: str) -> list[Point]:
    from pipeline.catalogue import points

    return list(points(repository, machine))
