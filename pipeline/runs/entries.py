"""What a run's journal holds (FORMAT.md, section 18): facts in the order in which they came to be true.

Times are the store's: that at which the entry was stored, never the writer's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from manifests.machine import Model
from pipeline.errors import CorruptObject, NewerFormat

Purpose = Literal["cutover", "rehearsal"]
Verb = Literal[
    "approve",
    "reject",
    "pause",
    "resume",
    "cancel",
    "hold",
    "retry",
    "rollback",
    "commit",
    "split",
    "flag",
    "override",
    "answer",
]
Outcome = Literal["committed", "rolled back", "partly committed", "cancelled", "rehearsed"]


class Started(Model):
    """The first entry: what is executed. The plan's version never changes during a run, and `digest`, of its document,
    tells one that was written over."""

    kind: Literal["started"] = "started"
    plan: str
    version: int
    digest: str
    purpose: Purpose = "cutover"


class Taken(Model):
    """From here on entries of earlier conductors mean nothing: this one acts."""

    kind: Literal["taken"] = "taken"
    conductor: int
    process: dict[str, Any]
    why: str = ""
    """What became of the one before."""


class Intended(Model):
    """About to be done, perhaps already done when nothing follows."""

    kind: Literal["intended"] = "intended"
    conductor: int
    effect: str
    attempt: int


class Ended(Model):
    """What came of it. `transient`: worth another try by itself."""

    kind: Literal["ended"] = "ended"
    conductor: int
    effect: str
    attempt: int
    done: bool
    result: dict[str, Any] = Field(default_factory=dict)
    error: str = ""
    remedy: str = ""
    reason: str = ""
    """The word for what is wrong, where it is one that people decide about: source-lost, foreign-change, ..."""
    transient: bool = False


class Away(Model):
    """The store was away for so long before this entry, while this conductor waited for it: no deadline counts it."""

    kind: Literal["away"] = "away"
    conductor: int
    seconds: float


class Met(Model):
    """All conditions held at one moment: those of the beginning, or those of a group's cutover."""

    kind: Literal["met"] = "met"
    conductor: int
    answers: dict[str, str]
    group: str = ""


class Waits(Model):
    """Conditions of a group's cutover did not hold: from here on they are waited for."""

    kind: Literal["waits"] = "waits"
    conductor: int
    answers: dict[str, str]
    group: str


class Asked(Model):
    """A person is asked. `binding` is what an answer is good for; `shown` what the question is about."""

    kind: Literal["asked"] = "asked"
    conductor: int
    what: str
    binding: str
    shown: dict[str, Any] = Field(default_factory=dict)


class Held(Model):
    """Nothing goes on by itself: a person is called. `state` is the word for why."""

    kind: Literal["held"] = "held"
    conductor: int
    state: str
    reason: str
    remedy: str = ""


class Turned(Model):
    """The conductor itself decided to go back with a group."""

    kind: Literal["turned"] = "turned"
    conductor: int
    group: str
    reason: str


class Decided(Model):
    """A person's word. `what`: the question, group, flag or machine it is about; `machines`: those that stay (split) or
    that are vouched for being off (override): at the takeover site, or, where `what` is "home", at home."""

    kind: Literal["decided"] = "decided"
    verb: Verb
    what: str = ""
    binding: str = ""
    machines: tuple[str, ...] = ()
    discard: bool = False
    """For a rollback: what was written at home since the gate opened is given up."""
    yes: bool = False
    """For an answer about a machine, `what`."""
    reason: str = ""


class Finished(Model):
    kind: Literal["finished"] = "finished"
    conductor: int
    outcome: Outcome


Body = Annotated[
    Started | Taken | Intended | Ended | Away | Met | Waits | Asked | Held | Turned | Decided | Finished,
    Field(discriminator="kind"),
]
_BODY: TypeAdapter[Any] = TypeAdapter(Body)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it was read. `id` was drawn by its writer, so that it knows its own after a lost answer."""

    number: int
    id: str
    time: datetime
    by: str
    body: Started | Taken | Intended | Ended | Away | Met | Waits | Asked | Held | Turned | Decided | Finished


def to_record(id_: str, by: str, body: Model) -> dict[str, Any]:
    return {"format": 1, "id": id_, "by": by, "body": body.model_dump(mode="json")}


def from_record(record: dict[str, Any], *, number: int, time: datetime, key: str) -> Entry:
    """Raises CorruptObject, NewerFormat."""
    if record.get("format") != 1:
        raise NewerFormat(f"{key} has format {record.get('format')!r}", remedy="upgrade failback on this host")
    try:
        body = _BODY.validate_python(record["body"])
        return Entry(number, str(record["id"]), time, str(record["by"]), body)
    except (ValidationError, KeyError, TypeError) as error:
        raise CorruptObject(f"{key} is no entry of a run's journal: {error}") from error
