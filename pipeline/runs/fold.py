"""What a journal says a run has come to: every entry in turn, and nothing else (no clock, no look at the world)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pipeline.errors import CorruptObject
from pipeline.runs.entries import (
    Asked,
    Away,
    Decided,
    Ended,
    Entry,
    Finished,
    Held,
    Intended,
    Met,
    Outcome,
    Purpose,
    Started,
    Taken,
    Turned,
    Waits,
)


@dataclass(slots=True)
class Effect:
    """One effect on the world, by name (`verb/subject`). `began`: it may have happened, in whole or in part."""

    attempts: int = 0
    done: bool = False
    failed: bool = False
    """For good, until a person says `retry`: what is transient is tried again without one."""
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    remedy: str = ""
    reason: str = ""
    since: datetime | None = None
    """When the first attempt was about to be made."""
    ended: datetime | None = None
    open: int = 0
    """Entry at which what goes on now was intended first; 0: nothing goes on. A kill in between does not end it."""

    began_at: int = 0
    """The same of the last time that anything went on."""

    @property
    def began(self) -> bool:
        return self.attempts > 0

    @property
    def refused(self) -> bool:
        """Its newest attempt came to its end, and did not do it."""
        return self.ended is not None and not self.open and not self.done


@dataclass(frozen=True, slots=True)
class Question:
    what: str
    binding: str
    time: datetime
    shown: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A person's yes or no to the question with this binding."""

    yes: bool
    binding: str
    by: str
    time: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Stand:
    """Why nothing goes on by itself."""

    state: str
    reason: str
    remedy: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Word:
    """What a person who looked at a machine says of it. `number`: of the entry."""

    yes: bool
    by: str
    time: datetime
    reason: str
    number: int


@dataclass(slots=True)
class RunState:
    """See `fold`."""

    run: str
    number: int = 0
    """Entries so far: what a person's command expects to find (`--expect`)."""
    plan: str = ""
    version: int = 0
    digest: str = ""
    """Of that version's document."""
    purpose: Purpose = "cutover"
    started: datetime | None = None
    started_by: str = ""
    newest: datetime | None = None
    conductor: int = 0
    process: dict[str, Any] = field(default_factory=dict)
    effects: dict[str, Effect] = field(default_factory=dict)
    away: list[tuple[datetime, timedelta]] = field(default_factory=list)
    """Times for which the store was away, and when it was back."""
    met: dict[str, str] | None = None
    """What was seen of the conditions of the beginning when all held."""
    met_before: dict[str, datetime] = field(default_factory=dict)
    """By group, when the conditions of its cutover held last."""
    met_at_once: set[str] = field(default_factory=set)
    """Groups for which they did when they were looked at: it was not waited for them."""
    awaited: dict[str, datetime] = field(default_factory=dict)
    """Groups whose cutover waits for conditions, or waited, and since when; a person's word begins it anew."""
    awaiting: str = ""
    """The group whose cutover waits for conditions now."""
    questions: dict[str, Question] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    paused: str = ""
    """By whom; empty: it is not."""
    stand: Stand | None = None
    back: dict[str, str] = field(default_factory=dict)
    """Groups that are taken back, and why."""
    discard: set[str] = field(default_factory=set)
    """Groups of which what was written at home may be given up."""
    stay: dict[str, str] = field(default_factory=dict)
    """Machines that stay at the takeover site by an approved split, and who said so."""
    vouched: dict[str, str] = field(default_factory=dict)
    """Machines that a person vouches for being off at the takeover site, and who."""
    home_vouched: dict[str, str] = field(default_factory=dict)
    """The same of home, on the way back."""
    flags: set[str] = field(default_factory=set)
    words: dict[str, Word] = field(default_factory=dict)
    """By machine, the newest."""
    accepted: set[str] = field(default_factory=set)
    """Words for why the run stood still that a person has taken note of by `retry`: not again for these."""
    cancelled: str = ""
    outcome: Outcome | None = None
    finished: datetime | None = None

    def effect(self, name: str) -> Effect:
        """As far as it came; one that was never begun is not kept."""
        return self.effects.get(name) or Effect()

    def frozen(self, since: datetime) -> timedelta:
        """How long the store was away since then."""
        return sum((seconds for back, seconds in self.away if back > since), timedelta())

    def done(self, name: str) -> bool:
        return self.effect(name).done

    def began(self, name: str) -> bool:
        return self.effect(name).began

    @property
    def waits(self) -> bool:
        """For conditions, unless a person is waited for as well."""
        return self.met is None or bool(self.awaiting)

    def waits_for(self, group: str) -> bool:
        """For the conditions of this group's cutover; and the journal says since when."""
        return group == self.awaiting and group in self.awaited

    def catch_ups(self, machine: str) -> list[Effect]:
        """Rounds by which its disks at home followed it after they had been staged, in their order."""
        prefix = f"catchup/{machine}/"
        numbers = sorted(int(name.removeprefix(prefix)) for name in self.effects if name.startswith(prefix))
        return [self.effect(f"{prefix}{number}") for number in numbers]

    def staged(self, machine: str) -> Effect:
        """The newest that made its disks at home equal a point while it worked."""
        return next((e for e in reversed(self.catch_ups(machine)) if e.done), self.effect(f"stage/{machine}"))

    @property
    def failed(self) -> list[str]:
        return [name for name, effect in self.effects.items() if effect.failed]


def open_question(state: RunState, what: str) -> bool:
    """Nobody has answered it, or it was asked anew since."""
    asked, answer = state.questions[what], state.answers.get(what)
    return answer is None or answer.binding != asked.binding or answer.time < asked.time


def asked_now(state: RunState) -> list[Question]:
    """What nobody has answered; a group that goes back is asked nothing more."""
    names = (n for n in state.questions if open_question(state, n) and n.partition("/")[2] not in state.back)
    return [state.questions[name] for name in names]


def waits_for_person(state: RunState) -> bool:
    """Nothing goes on before somebody says something."""
    return bool(state.paused or state.stand or asked_now(state))


def fold(run: str, entries: Iterable[Entry]) -> RunState:
    """The state after `entries`. Raises CorruptObject when they do not begin as a run does."""
    state = RunState(run)
    for entry in entries:
        step(state, entry)
    return state


def step(state: RunState, entry: Entry) -> None:
    """One entry more."""
    if (state.number == 0) != isinstance(entry.body, Started):
        raise CorruptObject(f"the journal of {state.run} does not begin as one of a run")
    state.number, state.newest = entry.number, entry.time
    match entry.body:
        case Started() as body:
            state.plan, state.version, state.purpose = body.plan, body.version, body.purpose
            state.digest = body.digest
            state.started, state.started_by = entry.time, entry.by
        case Taken() as body:
            state.conductor, state.process = body.conductor, body.process
        case Intended() | Ended() | Away() | Met() | Waits() | Asked() | Held() | Turned() | Finished() as body:
            # What a conductor appends after another has taken over was done in ignorance.
            if body.conductor == state.conductor:
                _conducted(state, entry, body)
        case Decided() as body:
            _decided(state, entry, body)


def _conducted(
    state: RunState, entry: Entry, body: Intended | Ended | Away | Met | Waits | Asked | Held | Turned | Finished
) -> None:
    match body:
        case Intended():
            effect = state.effects.setdefault(body.effect, Effect())
            effect.attempts += 1
            effect.since = effect.since or entry.time
            if not effect.open:
                effect.open = effect.began_at = entry.number
        case Ended():
            effect = state.effects.setdefault(body.effect, Effect())
            if effect.done:
                return
            effect.open = 0
            effect.done, effect.failed = body.done, not body.done and not body.transient
            effect.result, effect.error, effect.remedy = body.result, body.error, body.remedy
            effect.reason = body.reason
            effect.ended = entry.time
        case Away():
            state.away.append((entry.time, timedelta(seconds=body.seconds)))
        case Met(group=""):
            state.met = body.answers
        case Met(group=group):
            state.met_before[group] = entry.time
            (state.met_at_once.discard if group == state.awaiting else state.met_at_once.add)(group)
            state.awaiting = ""
        case Waits(group=group):
            state.awaited.setdefault(group, entry.time)
            state.awaiting = group
        case Asked():
            state.questions[body.what] = Question(body.what, body.binding, entry.time, body.shown)
            answer = state.answers.get(body.what)
            if answer is not None and answer.binding != body.binding:
                del state.answers[body.what]
        case Held():
            state.stand = Stand(body.state, body.reason, body.remedy, entry.time)
        case Turned():
            state.back.setdefault(body.group, body.reason)
            state.awaiting = ""
            state.stand = None
        case Finished():
            state.outcome, state.finished = body.outcome, entry.time


def _decided(state: RunState, entry: Entry, body: Decided) -> None:
    said = f"{entry.by}: {body.reason}" if body.reason else entry.by
    if body.verb in ("approve", "resume", "retry"):
        state.awaited.clear()  # what a person was waited for is no condition's fault
    match body.verb:
        case "approve" | "reject":
            if state.stand is not None and state.stand.state in ("approval-expired", "rejected"):
                state.stand = None
            state.answers[body.what] = Answer(body.verb == "approve", body.binding, entry.by, entry.time, body.reason)
        case "pause":
            state.paused = said
        case "resume":
            state.paused = ""
        case "hold":
            state.stand = Stand("held", f"asked for by {said}", f"`failback run retry {state.run}` goes on", entry.time)
        case "retry":
            if state.stand is not None:
                state.accepted.add(state.stand.state)
            state.stand = None
            for effect in state.effects.values():
                effect.failed = False
        case "cancel":
            state.cancelled = said
            state.stand = None
        case "rollback":
            state.back.setdefault(body.what, f"asked for by {said}")
            state.awaiting = ""
            if body.discard:
                state.discard.add(body.what)
            state.stand = None
            for effect in state.effects.values():
                effect.failed = False
        case "commit":
            question = state.questions.get(body.what)
            binding = question.binding if question else body.binding
            state.answers[body.what] = Answer(True, binding, entry.by, entry.time, body.reason)
        case "split":
            for machine in body.machines:
                state.stay.setdefault(machine, said)
            state.stand = None
            for effect in state.effects.values():
                effect.failed = False
        case "answer":
            state.words[body.what] = Word(body.yes, entry.by, entry.time, body.reason, entry.number)
        case "flag":
            state.flags.add(body.what)
        case "override":
            vouched = state.home_vouched if body.what == "home" else state.vouched
            for machine in body.machines:
                vouched.setdefault(machine, said)
            state.stand = None
            for effect in state.effects.values():
                effect.failed = False
