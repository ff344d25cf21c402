"""What a command that brought a machine home, or tried it out, prints and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.cli import exitcodes
from pipeline.cli.invocation import Ending, Invocation
from pipeline.laps import shown
from pipeline.units import count, duration, rate, size

if TYPE_CHECKING:
    from pipeline.catalogue import Point
    from pipeline.cli.checking import Checking
    from pipeline.finding import Finding
    from pipeline.home.arrival import Arrival
    from pipeline.home.site import Site
    from pipeline.target import DiskRestored
    from pipeline.wanted import Wanted

_SUMS = ("read", "written", "unchanged")


def forecast_ending(
    invocation: Invocation, site: Site, point: Point, wanted: Wanted, *, rehearsal: bool, boots: bool
) -> Ending:
    """A dry run: what would move, and what was found beforehand."""
    from pipeline.home.ready import findings
    from pipeline.home.settle import is_there
    from pipeline.target import Intent

    intent = Intent("rehearsal" if rehearsal else "production", boots=boots or rehearsal)
    found = findings(site, point, wanted, intent)
    there = is_there(site, point, reuse=not rehearsal)
    disks = [] if there else site.importer.forecast(site.find(), point, wanted)
    label, to_move = point.manifest.label, sum(r.to_move for r in disks)
    invocation.output.say(
        f"{label} is on the disks at {site.target} already, and its machine was switched on: nothing would move"
        if there
        else f"{label} would move {size(to_move)} (nothing was written): "
        f"{count(len(disks), 'disk')}, {size(_total(point, disks))}"
    )
    _tell_disks(invocation, point, disks, dry_run=True)
    tell_findings(invocation, found)
    errors = [f for f in found if f.severity == "error"]
    if errors:
        invocation.failed_quietly(f"{site.machine} cannot come to {site.target}: {errors[0].message}")
    values = {"point": label, "target": site.target, "dry_run": True, "to_move": to_move}
    values |= _sums(disks) | {"disks": _disk_values(point, disks, dry_run=True), "findings": finding_values(found)}
    if site.abilities.machines:
        values["machine"] = {
            "name": wanted.name,
            "cpus": wanted.hardware.cpus,
            "memory_bytes": wanted.hardware.memory_bytes,
            "firmware": wanted.hardware.firmware,
            "networks": [n.model_dump() for n in wanted.networks],
        }
    return Ending(exitcodes.NOT_CLEAN if errors else exitcodes.OK, values)


def ending_of(
    invocation: Invocation, point: Point, target: str, arrival: Arrival, checking: Checking, *, rehearsal: bool
) -> Ending:
    """For people a few lines and a table of checks; for programs all of it."""
    label, disks, say = point.manifest.label, arrival.disks, invocation.output.say
    tell_findings(invocation, arrival.findings)
    total = _total(point, disks)
    if disks:
        say(f"{label} is restored: {count(len(disks), 'disk')}, {size(total)}")
    else:
        say(f"{label} is on the disks at {target} already")
    _tell_disks(invocation, point, disks, dry_run=False)
    sums = _sums(disks)
    if disks:
        say(f"  fetched {size(sums['read'])}, wrote {size(sums['written'])}, unchanged {size(sums['unchanged'])}")
    if seconds := sum(disk.seconds for disk in disks):
        moved = sums["read"] or sums["written"]
        say(f"  took {duration(seconds)}" + (f", {rate(total, seconds)}" if moved else ""))
    if arrival.steps:
        invocation.note(f"  where the time went: {shown(arrival.steps)}")
    _tell_machine(invocation, arrival, target, rehearsal=rehearsal)
    values: dict[str, Any] = {"point": label, "target": target, "dry_run": False, "to_move": None, **sums}
    values |= {"disks": _disk_values(point, disks, dry_run=False), "findings": finding_values(arrival.findings)}
    values["steps"] = dict(arrival.steps)
    if arrival.build is not None or rehearsal:
        values["machine"] = {
            "name": arrival.build.name if arrival.build else "",
            "purpose": "rehearsal" if rehearsal else "production",
            "running": arrival.running,
            "booted": arrival.seen is not None,
        }
    return Ending(_tell_checks(invocation, label, checking, values), values)


def tell_findings(invocation: Invocation, findings: Sequence[Finding]) -> None:
    if any(finding.severity == "note" for finding in findings):
        invocation.output.say("found beforehand:")
    for finding in findings:
        text = f"{finding.subject}: {finding.message}" + (f" ({finding.remedy})" if finding.remedy else "")
        if finding.severity == "note":
            invocation.note(f"  {text}")
        elif finding.severity == "warning":
            invocation.warn(text)
        else:
            invocation.warn(f"would stop: {text}")


def finding_values(findings: Sequence[Finding]) -> list[dict[str, str]]:
    return [{"severity": f.severity, "subject": f.subject, "message": f.message, "remedy": f.remedy} for f in findings]


def _tell_machine(invocation: Invocation, arrival: Arrival, target: str, *, rehearsal: bool) -> None:
    say = invocation.output.say
    if rehearsal:
        say(f"it was tried out at {target} and switched off; what it wrote is thrown away")
    elif arrival.build is not None:
        state = "runs" if arrival.running else "was switched off again" if arrival.seen else "is built and off"
        say(f"{arrival.build.name} {state} at {target}")
        for key, value in sorted(arrival.build.ref.items()):
            invocation.note(f"  {key}: {value}")


def _tell_checks(invocation: Invocation, label: str, checking: Checking, values: dict[str, Any]) -> int:
    """The table of checks; the exit code that they give."""
    results = checking.results
    if checking.pictured:
        values["picture"] = checking.pictured
        invocation.output.say(f"picture of its console: {checking.pictured}")
    if results is None:
        return exitcodes.OK
    from pipeline.verify.table import COLUMNS, NUMBERS, rows

    values |= {"checks": results.as_json(), "weak_proof": checking.weak}
    invocation.output.table(COLUMNS, rows(results), right=NUMBERS)
    if results.verified:
        invocation.output.say(f"{label} is verified, in {duration(results.seconds)}")
        if checking.weak:
            invocation.warn(
                "a weak proof: its console showed something else than the firmware; say with --hook or --checks what "
                "shows that it works"
            )
        return exitcodes.OK
    invocation.output.say(f"{label} is NOT verified: {results.why}")
    invocation.failed_quietly(f"{label} is not verified: {results.why}")
    return exitcodes.NOT_VERIFIED


def _tell_disks(invocation: Invocation, point: Point, results: Sequence[DiskRestored], *, dry_run: bool) -> None:
    disks = {d.number: d for d in point.manifest.disks}
    for result in results:
        # Some targets have no name for a disk but its number.
        where = "" if result.target == f"disk {result.number}" else f"{result.target}: "
        invocation.note(f"  disk {result.number}: {where}{result.mode}, {result.reason}")
        if not dry_run:
            invocation.note(f"  disk {result.number}: {result.proof}, digest {result.digest[:16]}…")
        for offset, length in disks[result.number].unreadable:
            invocation.warn(
                f"disk {result.number}: {length} bytes at {offset} are zeros: the source could not be read there"
            )


def _total(point: Point, results: Sequence[DiskRestored]) -> int:
    disks = {d.number: d for d in point.manifest.disks}
    return sum(disks[r.number].size for r in results)


def _sums(results: Sequence[DiskRestored]) -> dict[str, int]:
    return {name: sum(getattr(r.counters, name) for r in results) for name in _SUMS}


def _disk_values(point: Point, results: Sequence[DiskRestored], *, dry_run: bool) -> list[dict[str, Any]]:
    disks = {d.number: d for d in point.manifest.disks}
    return [
        {
            "number": r.number,
            "target": r.target,
            "size": disks[r.number].size,
            "mode": r.mode,
            "reason": r.reason,
            "digest": r.digest,
            "proof": r.proof,
            "seconds": round(r.seconds, 3),
            "to_move": r.to_move if dry_run else None,
            **{name: getattr(r.counters, name) for name in (*_SUMS, "deduplicated")},
        }
        for r in results
    ]
