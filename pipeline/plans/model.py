"""A plan: which machines come home together, from where to where, when, how it is judged, and who is asked.

    name: shop
    target: qemu
    mapping: {networks: {"*": {isolated: true}}}         # as of `failback import --map`, for this plan's machines
    source: {kind: qemu, options: {}}
    machines:
      db:
        source: {folder: /takeover/db, quiesce: [service, postgresql, stop]}
        checks: [{name: answers, hook: tcp, settings: {port: 5432}}]
      web-1: {source: {folder: /takeover/web-1}, needs: [db]}
      web-2: {source: {folder: /takeover/web-2}, needs: [db]}
    groups:
      - name: shop
        waves: [[db], [web-1, web-2]]                    # boot order; they are stopped in the reverse one
        traffic: [{name: dns, kind: command, settings: {open: [...], close: [...], observe: [...]}}]
    conditions:
      - {name: fresh, kind: point-age, settings: {younger: 24h}}
      - {name: night, kind: window, when: cutover, settings: {times: ["22:00-05:00"]}}
    rehearsal: {before_cutover: true}
    approvals: {cutover: true, gate: false, commit: true}
    on_failure: hold
    deadlines: {conditions: 12h, downtime: 30min}
    commit: {after: 10min, green: 5}

All of a plan is data: nothing in it is run before a run begins, but conditions of kind `command` (`plan check` looks at
all conditions once). Durations and sizes are texts with a unit. What a kind of source, condition or traffic step wants
in its `settings` is said by that kind. Names of variables and files stand in a plan, never the secrets in them.

The models say what a value may be; `pipeline.plans.agree` what values must have to do with each other. Plans are read
by `pipeline.plans.parse`, from files, and by `pipeline.plans.stored`, from the bucket.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, field_validator

from manifests.machine import Model as Strict
from manifests.names import decode_machine, encode_machine
from pipeline.errors import UsageError
from pipeline.mapping import Mapping as TargetMapping
from pipeline.verify.checks import Check
from pipeline.verify.duration import LongSeconds

PLAN_NAME = "[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"


class Model(Strict):
    """The texts below fields are their descriptions in the published schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


def _machine(value: str) -> str:
    """As the repository has it: two spellings of one name are one machine."""
    try:
        return decode_machine(encode_machine(value))
    except UsageError as error:
        raise ValueError(error.message) from None


def _line(value: str) -> str:
    if not value.strip() or any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in value):
        raise ValueError("a name has one line that is not blank, and no control characters")
    return value


Kind = Annotated[str, Field(min_length=1, max_length=100)]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern="^[^/]+$"), AfterValidator(_line)]
MachineName = Annotated[str, AfterValidator(_machine)]
Settings = dict[str, Any]
Positive = LongSeconds


class SourcePlan(Model):
    """Where the machines run now; `kind` is an entry point of `failback.sources`."""

    kind: Kind
    options: Settings = Field(default_factory=dict)


class MachinePlan(Model):
    """One machine. `needs`: machines that must answer before this one is of use, also when it stays behind."""

    source: Settings = Field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    needs: tuple[MachineName, ...] = ()
    tags: dict[str, str] = Field(default_factory=dict)


class TrafficStep(Model):
    """One step that lets users in, with its undo; `kind` is an entry point of `failback.traffic`."""

    name: Name
    kind: Kind
    settings: Settings = Field(default_factory=dict)


class Group(Model):
    """The unit of cutover: all of it is at home, or none (but for an approved split)."""

    name: Name
    waves: Annotated[tuple[Annotated[tuple[MachineName, ...], Field(min_length=1)], ...], Field(min_length=1)]
    traffic: tuple[TrafficStep, ...] = ()
    after: tuple[Name, ...] = ()
    """Groups that must be committed first."""

    @property
    def machines(self) -> tuple[str, ...]:
        """In the order in which they boot."""
        return tuple(machine for wave in self.waves for machine in wave)


class Condition(Model):
    """Something that is waited for; `kind` is an entry point of `failback.conditions`. `within`: as long it is waited
    for; without it, without end."""

    name: Name
    kind: Kind
    settings: Settings = Field(default_factory=dict)
    when: Literal["start", "cutover"] = "start"
    """start: before a run exports and stages; cutover: before each group's downtime begins, after its approval."""
    within: Positive | None = None


class Rehearsal(Model):
    before_cutover: bool = False
    """A run rehearses all groups before it asks for the cutover."""
    keep_pictures: bool = True


class Approvals(Model):
    """Where a person is asked. An approval binds the plan's version, the set and the targets, for `valid` long."""

    cutover: bool = True
    gate: bool = False
    commit: bool = True
    valid: Positive = 8 * 3600.0


class Deadlines(Model):
    """By the store's clock. What is late is held, never undone by itself."""

    conditions: Positive | None = None
    """Of all conditions together; those before a cutover are counted by themselves, for each group."""
    downtime: Positive | None = None
    """From the first machine's services stopped to the gate open."""
    checks: Positive = 900.0
    """Of all checks of one machine."""


class Commit(Model):
    """When `approvals.commit` is false: commits by itself after the gate was open so long, when the last `green` looks
    at all checks, `every` so often and each of them fresh, found all well."""

    after: Positive = 600.0
    green: Annotated[int, Field(ge=1, le=1000)] = 3
    every: Positive = 60.0


class Limits(Model):
    parallel: Annotated[int, Field(ge=1, le=64)] = 4
    """Machines worked on at once."""
    catch_up: Annotated[Positive, Field(ge=60)] | None = 900.0
    """What was staged longer ago is exported and staged once more before a group's downtime begins, and so is what took
    longer, while each such round takes less than half of the one before; while conditions of the cutover are waited
    for, after four times as long. At least a minute. null: never."""


Calendar = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9*:,./~_+ -]+$")]
Job = Literal["export", "conditions", "scrub", "gc", "rehearse"]
"""What can be scheduled. conditions: look at them, and start the run when all hold."""


class Plan(Model):
    """The whole document."""

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=f"^{PLAN_NAME}$", description="a-z, 0-9 and '-', up to 40 characters")]
    target: Kind
    mapping: TargetMapping = Field(default_factory=TargetMapping)
    source: SourcePlan
    machines: Annotated[dict[MachineName, MachinePlan], Field(min_length=1)]
    groups: Annotated[tuple[Group, ...], Field(min_length=1)]
    conditions: tuple[Condition, ...] = ()
    rehearsal: Rehearsal = Field(default_factory=Rehearsal)
    approvals: Approvals = Field(default_factory=Approvals)
    on_failure: Literal["hold", "rollback"] = "hold"
    deadlines: Deadlines = Field(default_factory=Deadlines)
    commit: Commit = Field(default_factory=Commit)
    limits: Limits = Field(default_factory=Limits)
    schedule: dict[Job, Calendar] = Field(default_factory=dict)
    """systemd calendar expressions for `failback schedule install`, by what is done then."""

    @field_validator("machines", mode="before")
    @classmethod
    def _spelled_once(cls, value: object) -> object:
        """Two spellings of one name would be one machine, and what is said under one of them lost."""
        if isinstance(value, dict):
            names = [unicodedata.normalize("NFC", name) for name in value if isinstance(name, str)]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"two are named {twice[0]!r}, of code points that look alike")
        return value

    def conditions_at(self, when: Literal["start", "cutover"]) -> list[Condition]:
        """In their order."""
        return [condition for condition in self.conditions if condition.when == when]

    def group_of(self, machine: str) -> Group:
        """The one group of a machine of this plan."""
        return next(group for group in self.groups if machine in group.machines)
