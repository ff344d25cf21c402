"""Is the target ready? What the abilities say, what the mapping shows, and what the importer finds beforehand."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.catalogue import Point
from pipeline.errors import NotReady
from pipeline.finding import Finding
from pipeline.home.site import Site
from pipeline.target import Intent
from pipeline.wanted import Wanted


def findings(site: Site, point: Point, wanted: Wanted, intent: Intent) -> list[Finding]:
    """All findings. Changes nothing."""
    mapped = wanted.findings
    if not site.abilities.machines:
        mapped = tuple(f for f in mapped if f.subject.startswith("disk "))  # the others are about a machine
    found = [*mapped, *_by_abilities(site, point, intent)]
    return [*found, *site.importer.preflight(point, wanted, intent)]


def check_ready(site: Site, point: Point, wanted: Wanted, intent: Intent) -> list[Finding]:
    """The findings that stop nobody. Raises NotReady, which names the errors, when there are any."""
    found = findings(site, point, wanted, intent)
    errors = [finding for finding in found if finding.severity == "error"]
    if errors:
        raise not_ready(site, errors)
    return found


def not_ready(site: Site, errors: Sequence[Finding]) -> NotReady:
    """One error for all findings: each in a line of its own, its remedy below it."""
    more = "".join(f"\n  {f.subject}: {f.message}\n    {f.remedy}" for f in errors[1:])
    first = errors[0]
    return NotReady(
        f"{site.machine} cannot come to {site.target}: {first.subject}: {first.message}", remedy=f"{first.remedy}{more}"
    )


def _by_abilities(site: Site, point: Point, intent: Intent) -> list[Finding]:
    abilities, target = site.abilities, site.target
    found: list[Finding] = []

    def error(subject: str, message: str, remedy: str) -> None:
        found.append(Finding("error", subject, message, remedy))

    if intent.purpose == "rehearsal":
        if abilities.layer == "none":
            error(
                "rehearsal",
                f"{target} has no layer that can be thrown away: a rehearsal would change the staged disks",
                "rehearse on another target, such as qemu",
            )
        if abilities.power != "api":
            error(
                "rehearsal",
                f"{target} cannot switch the machine off: a rehearsal would go on running",
                "rehearse on another target, such as qemu",
            )
    elif intent.boots and abilities.power == "none":
        error("power", f"{target} cannot switch machines on", "leave --boot away and start it by hand")
    if intent.instant and not abilities.instant:
        error("instant", f"{target} cannot start a machine before its disks are whole", "leave --instant away")
    for disk in point.manifest.disks:
        if abilities.max_disk is not None and disk.size > abilities.max_disk:
            error(
                f"disk {disk.number}",
                f"it has {disk.size} bytes; {target} takes {abilities.max_disk} at most",
                "bring this machine to another target",
            )
    return found
