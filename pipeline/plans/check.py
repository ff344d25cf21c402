"""Everything about a plan that can be known before a run begins, for all machines at once. Changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from manifests.names import PointName
from pipeline.catalogue import Point, resolve
from pipeline.errors import CatalogueError, FailbackError, UsageError
from pipeline.finding import Finding, Severity
from pipeline.home.ready import findings as target_findings
from pipeline.plans.agree import condition_of, traffic_findings
from pipeline.plans.condition import World
from pipeline.plans.model import MachinePlan, Plan
from pipeline.schedule.calendar import check_calendar
from pipeline.source import SourceAbilities
from pipeline.target import Intent
from pipeline.transfer.forecast import forecast
from pipeline.units import count, duration, size
from pipeline.verify.checks import ports_of
from pipeline.verify.duration import DAY
from pipeline.wanted import Wanted
from pipeline.wanted import resolve as resolve_mapping


@dataclass(frozen=True, slots=True)
class Found:
    """One finding. `machine` is empty for what concerns the whole plan."""

    machine: str
    finding: Finding


def check_plan(world: World) -> Iterator[Found]:
    """All that is found: of the plan first, then of each machine, then its conditions. A condition that does not hold
    yet is a note: it is waited for. What cannot be looked at now is an error, for nobody knows what it hides."""
    yield from _of_plan(world)
    with ThreadPoolExecutor(world.plan.limits.parallel, "plan-check") as pool:
        for found in pool.map(lambda name: list(_of_machine(world, name)), world.plan.machines):
            yield from found
    yield from _conditions(world)


# -- the plan itself ---------------------------------------------------------------------------------------------------


def _of_plan(world: World) -> Iterator[Found]:
    plan, repository = world.plan, world.repository
    if not repository.conditional_put:
        lacks = (
            f"{repository.store.name} has no conditional PUT: two conductors could both believe that they own a machine"
        )
        if plan.approvals.cutover:
            yield _found("", "warning", "ownership", lacks, "see to it that one host conducts, or move the repository")
        else:
            yield _found(
                "",
                "error",
                "ownership",
                f"{lacks}, so a cutover that asks nobody is refused",
                "set `approvals: {cutover: true}`, or move the repository to a store that has it",
            )
    for kind, calendar in plan.schedule.items():
        try:
            check_calendar(calendar)
        except UsageError as error:
            yield _found("", "error", f"schedule {kind}", error.message, error.remedy)
    for group in plan.groups:
        if not group.traffic:
            yield _found(
                "",
                "warning",
                f"group {group.name}",
                "it has no traffic steps: users reach its machines as soon as they run, before they are verified, and "
                "what they write is lost when the run goes back",
                "add `traffic:` steps that keep users out until the gate opens",
            )
        for step in group.traffic:
            if step.kind == "command" and not step.settings.get("observe"):
                yield _found(
                    "",
                    "note",
                    f"traffic {step.name}",
                    "it has no `observe`: nobody can say whether users are let in",
                    "name a program that prints open or closed",
                )
            yield from _programs(
                f"traffic {step.name}", *(step.settings.get(word) for word in ("open", "close", "observe"))
            )
    for condition in plan.conditions:
        if condition.kind == "command":
            yield from _programs(f"condition {condition.name}", condition.settings.get("argv"))
    for name, machine in plan.machines.items():
        own = plan.group_of(name)
        for needed in machine.needs:
            other = plan.group_of(needed)
            if other.name != own.name and other.name not in own.after:
                yield _found(
                    name,
                    "warning",
                    "needs",
                    f"it needs {needed}, whose group {other.name} may still be at the takeover site when {own.name} is "
                    "at home, or the other way round",
                    f"write `after: [{other.name}]` for group {own.name}, put both into one group, or make sure that "
                    "they reach each other across the sites",
                )


def _programs(subject: str, *argvs: object) -> Iterator[Found]:
    for argv in argvs:
        if isinstance(argv, list | tuple) and argv and shutil.which(str(argv[0])) is None:
            yield _found(
                "",
                "warning",
                subject,
                f"{argv[0]} is not installed on this host, or not executable",
                "install it on every host that may conduct the run",
            )


# -- one machine -------------------------------------------------------------------------------------------------------


def _of_machine(world: World, name: str) -> Iterator[Found]:
    machine = world.plan.machines[name]
    yield from _side(world, name)
    able = yield from _source(world, name, machine)
    yield from _verdict(world, name, machine)
    try:
        point = resolve(world.repository, PointName(name, None))
    except CatalogueError as error:
        exports = able is None or able.reads
        remedy = "the run exports it" if exports else "export it where it runs: its source gives no disks"
        yield _found(name, "warning" if exports else "error", "point", error.message, remedy)
        return
    except FailbackError as error:
        yield _found(name, "error", "point", error.message, error.remedy or "`failback verify` says more")
        return
    yield from _point(world, name, point, able)
    yield from _target(world, name, point)


def _side(world: World, name: str) -> Iterator[Found]:
    from pipeline.runs.ownership import current  # runs execute plans, and so know them

    try:
        owner = current(world.repository, name)
    except FailbackError as error:
        yield _found(name, "error", "ownership", error.message, error.remedy or "bring it back from an older version")
        return
    if owner.side != "takeover":
        yield _found(
            name,
            "error",
            "ownership",
            f"it is {owner.side}, by run {owner.run}: it does not belong to the takeover side",
            _way_back(owner.side, owner.run, name),
        )


def _way_back(side: str, run: str, name: str) -> str:
    """How a machine comes to belong to the takeover side again."""
    if side == "home-committed":
        return f"it came home for good; if it runs elsewhere again, `failback run reown {name} --reason WHY` says so"
    return f"`failback run show {run}` says where that run is, and how it goes on or back"


def _source(world: World, name: str, machine: MachinePlan) -> Generator[Found, None, SourceAbilities | None]:
    """Returns what it can do for this machine; None when it cannot be asked."""
    try:
        source = world.source()
        able = source.able(name, machine.source)
    except FailbackError as error:
        yield _found(name, "error", "source", error.message, error.remedy or "correct the plan's `source`")
        return None
    said = set[str]()
    try:
        for finding in source.preflight(name, machine.source):
            said.add(finding.subject)
            yield Found(name, Finding(finding.severity, f"source: {finding.subject}", finding.message, finding.remedy))
    except FailbackError as error:
        yield _found(name, "error", "source", error.message, error.remedy or "look whether the platform answers")
    kind = world.plan.source.kind
    for lacking, subject, severity, message, remedy in _lacking(kind, able):
        if lacking and subject not in said:
            yield _found(name, severity, "source", message, remedy)
    return able


def _lacking(kind: str, able: SourceAbilities) -> Iterator[tuple[bool, str, Severity, str, str]]:
    """Whether it lacks something, and under which subject a source itself says so (better: it names the setting)."""
    yield (
        able.proof == "none",
        "prove_stopped",
        "warning",
        f"{kind} cannot prove that the machine is off: the run stops there until a person vouches for it",
        "name a program that proves it, or be there",
    )
    yield (
        not able.locks,
        "lock",
        "warning",
        f"{kind} cannot keep the machine from starting by itself at the takeover site",
        "switch autostart and high availability off there before the cutover",
    )
    yield (
        not able.reads,
        "disks",
        "warning",
        f"{kind} gives no disks: points of this machine have to come from exports elsewhere, the last one too",
        "schedule them there, and add a condition of kind point-age",
    )
    yield (
        able.reads and not able.changes,
        "changes",
        "note",
        f"{kind} does not know what changed: the last export reads whole disks, and downtime grows with them",
        "",
    )
    yield (
        able.quiesce == "none",
        "quiesce",
        "note",
        f"{kind} stops no services: the machine is shut down before its last export, and downtime grows by that",
        "",
    )


def _verdict(world: World, name: str, machine: MachinePlan) -> Iterator[Found]:
    if any(check.level == "required" for check in machine.checks):
        return
    if world.plan.approvals.commit:
        yield _found(
            name,
            "warning",
            "checks",
            "nothing is asked of it but that it starts",
            "add `checks:` that say whether it does its work",
        )
    else:
        yield _found(
            name,
            "error",
            "checks",
            "the run commits by itself when all checks are well, and this machine has none that is required",
            "add `checks:`, or set `approvals: {commit: true}`",
        )


def _point(world: World, name: str, point: Point, able: SourceAbilities | None) -> Iterator[Found]:
    manifest = point.manifest
    age = max((world.now - datetime.fromisoformat(manifest.started)).total_seconds(), 0.0)
    yield _found(name, "note", "point", f"the newest is {manifest.label}, {duration(age)} old")
    exports = able is None or able.reads
    then = "the run takes another one" if exports else "take another one of the machine at rest"
    if manifest.consistency == "torn":
        yield _found(
            name,
            "note" if exports else "warning",
            "point",
            f"{manifest.label} is torn: it was read while the machine wrote",
            then,
        )
    unreadable = sum(length for disk in manifest.disks for _offset, length in disk.unreadable)
    if unreadable:
        yield _found(
            name,
            "warning",
            "point",
            f"{size(unreadable)} of {manifest.label} could not be read at the source and are zeros",
            "mend the source's disk; a later export reads it again",
        )


def _target(world: World, name: str, point: Point) -> Iterator[Found]:
    plan = world.plan
    wanted = resolve_mapping(plan.mapping, point.manifest, plan.target)
    try:
        site = world.site(name)
        if not site.abilities.machines:
            yield _found(
                name, "error", "target", f"{plan.target} has disks and no machines", "name another target, such as qemu"
            )
            return
        found = target_findings(site, point, wanted, Intent("production", boots=True))
        if plan.rehearsal.before_cutover:
            known = {(f.subject, f.message) for f in found}
            tried = target_findings(site, point, wanted.rehearsal(), Intent("rehearsal", boots=True))
            found += [f for f in tried if f.severity == "error" and (f.subject, f.message) not in known]
        found += traffic_findings(plan, name, site.importer, wanted)
        for finding in found:
            yield Found(name, finding)
        yield from _reachable(world, name, wanted)
        if any(finding.severity == "error" for finding in found):
            return  # what is not ready cannot be forecast
        place = site.find()
        to_move = sum(disk.to_move for disk in site.importer.forecast(place, point, wanted))
    except FailbackError as error:
        yield _found(name, "error", "target", error.message, error.remedy or "look whether the platform answers")
        return
    stage = place.stage if place is not None else None
    held = f"{stage.machine}@{stage.sequence} is staged" if stage is not None else "nothing is staged yet"
    yield _found(name, "note", "forecast", f"{held}; to move for {point.manifest.label}: {forecast(to_move)}")
    if site.abilities.patch == "none":
        whole = sum(disk.to_move for disk in site.importer.forecast(None, point, wanted))
        yield _found(
            name,
            "warning" if whole / _RATE > _SHORT else "note",
            "forecast",
            f"{plan.target} takes disks as a whole only: in the downtime all {size(whole)} move again, which takes "
            f"{duration(whole / _RATE)}, however little changed",
            "let a program there write what differs, where the target has one (vmware: `worker` in its options)",
        )
        return
    last = sum(disk.stored_bytes for disk in point.manifest.disks)
    if point.manifest.parent is not None:
        yield _found(
            name,
            "note",
            "forecast",
            f"the last export sent {size(last)}; one as large takes {duration(last / _RATE)} twice in the downtime, "
            "out and in, besides starting and checking",
        )


_RATE = 100e6
"""Bytes a second, as `pipeline.transfer.forecast` assumes."""
_SHORT = 60.0
"""Seconds of downtime that nobody needs to be warned of."""


def _reachable(world: World, name: str, wanted: Wanted) -> Iterator[Found]:
    for check in world.plan.machines[name].checks:
        ports = ports_of([check])
        if ports and not wanted.networks and check.level == "required":
            yield _found(
                name,
                "error",
                f"check {check.name}",
                f"it has no network adapter at the target: port {ports[0]} cannot be reached",
                "map its networks, or leave the check out",
            )


# -- conditions --------------------------------------------------------------------------------------------------------


def _conditions(world: World) -> Iterator[Found]:
    yield from _approved_in_time(world.plan)
    waits = 0
    for condition in world.plan.conditions:
        at_once = condition.when == "start"
        subject = f"condition {condition.name}" + ("" if at_once else " before a cutover")
        try:
            answer = condition_of(condition).look(world)
        except UsageError as error:
            yield _found("", "error", subject, error.message, error.remedy or "correct its settings")
            continue
        except FailbackError as error:
            waits += at_once
            yield _found("", "note", subject, f"waiting: {error.message}", error.remedy)
            continue
        waits += at_once and not answer.holds
        yield _found("", "note", subject, f"{'holds' if answer.holds else 'waiting'}: {answer.seen}")
    if waits:
        yield _found("", "note", "conditions", f"a run would wait for {count(waits, 'condition')} now")


def _approved_in_time(plan: Plan) -> Iterator[Found]:
    short = plan.approvals.cutover and plan.approvals.valid < DAY
    for condition in plan.conditions:
        if short and (condition.kind, condition.when) == ("window", "cutover"):
            yield _found(
                "",
                "warning",
                f"condition {condition.name}",
                f"a yes to the cutover is good for {duration(plan.approvals.valid)}: the window may open "
                "later, and then it is asked anew",
                "`approvals: {valid: 24h}`, or longer",
            )


def _found(machine: str, severity: Severity, subject: str, message: str, remedy: str = "") -> Found:
    return Found(machine, Finding(severity, subject, message, remedy))
