"""The conductor: looks at the journal, does what comes next, writes down what came of it, and looks again.

It may be killed at any moment and started anywhere else: all it knows is in the repository and at the platforms. One
conducts at a time. A later one takes over by an entry of its own in the journal, when the one before is dead or gives
no sign of life; what the earlier one still appends is then refused (`Superseded`) or means nothing, and what it still
does to the world is refused by the epochs at the source, by the chain of ownership, and by the layer that a way back
throws away before the takeover side starts.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from manifests.machine import Model
from pipeline.errors import (
    AgentSilent,
    Cancelled,
    FailbackError,
    PlaceHeld,
    RunRefused,
    SessionHeld,
    SourceBusy,
    SourceUnavailable,
    StoreUnavailable,
    Superseded,
    TargetUnavailable,
)
from pipeline.home.control import Controller
from pipeline.progress import Counters, Watch
from pipeline.runs.crew import WAITING, Answers, Crew, waited_since
from pipeline.runs.decide import Ask, Do, Finish, Hold, Look, Next, Over, Paused, Turn, Wait, decide, giving_up, touched
from pipeline.runs.effects.job import ClockSuspect, ForeignChange, Job, Result
from pipeline.runs.effects.reading import release_all
from pipeline.runs.effects.table import VERBS
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
    Taken,
    Turned,
    Waits,
)
from pipeline.runs.fold import RunState, step
from pipeline.runs.journal import Journal, Moved
from pipeline.runs.status import check_whole, clock_key, encode_status, progress_of, status_key, status_of, who
from pipeline.runs.store_clock import StoreClock
from pipeline.runs.succession import SILENT, is_dead, why_free
from pipeline.transfer.process import Process
from pipeline.transfer.session import EXPIRY

BEAT_SECONDS = 5.0
SLEPT_SECONDS = 15.0
"""An effect that was not heard of for so long looks whether it is still wanted."""
TRIES = 6
"""Attempts at what fails in a way that passes, before a person is called."""
LONGEST_WAIT = 30.0
WORTH_SECONDS = 1.0
"""An absence of the store that is written down, so that deadlines do not count it."""
LOOK_SECONDS = 5.0
"""Between two looks at conditions, and at the journal for what people decided."""
TRANSIENT = (
    StoreUnavailable, TargetUnavailable, SourceUnavailable, AgentSilent, SessionHeld, PlaceHeld, SourceBusy
)  # fmt: skip


class Conductor:
    """Of one run, once: `conduct` goes on until the run is over or waits for a person."""

    def __init__(self, crew: Crew, run: str, *, here: Process | None = None) -> None:
        self.crew = crew
        self.run = run
        self.journal = Journal(crew.ground.repository, run)
        self.state = RunState(run)
        self.number = 0
        self.here = here or Process.current()
        self.status: dict[str, Any] = {}
        self.seen: dict[str, str] = {}
        """Conditions at the last look."""
        self._awaited: set[str] = set()
        """Conditions that did not hold then."""
        self._counters: dict[str, Counters] = {}
        self._told: dict[str, str] = {}
        self._lock = threading.RLock()
        self._lost: str = ""
        self._controls: set[Controller] = {crew.source_control}
        self._ended = threading.Event()
        self._cancelled = threading.Event()
        self._clock = StoreClock(crew.ground.repository.store, "")

    # -- being the one ---------------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Raises RunRefused while another conductor gives signs of life."""
        self._refresh()
        if self.state.number == 0:
            raise RunRefused(f"there is no run {self.run}", remedy="`failback run list` shows them")
        check_whole(self.crew.ground.repository, self.state)
        why = why_free(self.crew.ground.repository, self.state, self.here)
        self.number = self.state.conductor + 1
        self._clock.key = status_key(self.run, self.number)
        self._beat_once()
        taken = Taken(conductor=self.number, process=self.here.document(), why=why)
        try:
            self._append(taken, unless=lambda entry: isinstance(entry.body, Taken))
        except Moved:
            raise RunRefused(
                f"another conductor took run {self.run} at the same moment", remedy="`failback run watch` shows it"
            ) from None

    # -- the loop --------------------------------------------------------------------------------------------------

    def conduct(self, *, wait: bool = True, attend: bool = False) -> Next:
        """Take over and go on. Returns what it stopped at: Over, or Ask, Hold, Paused (unless `attend`: then a person's
        word is waited for), or Look, Wait (only without `wait`).

        Raises RunRefused, Superseded, Cancelled, and StoreError where the store is away before anything was touched.
        """
        self.take_over()
        beat = threading.Thread(target=self._beat, name=f"conductor {self.run}", daemon=True)
        beat.start()
        try:
            while True:
                coming = self._next()
                if isinstance(coming, Over) or not self._gone_on(coming, wait=wait, attend=attend):
                    return coming
        finally:
            self._ended.set()
            for control in list(self._controls):
                control.cancel()
            beat.join()
            if not self._lost:
                # The next one need not wait until this one has been silent for long. Where the store is away, it must.
                with suppress(FailbackError):
                    self._beat_once(ended=True)

    def only_waits(self) -> Look | None:
        """Whether nothing keeps the run but conditions that do not hold yet. They are looked at without taking over,
        and what was seen is shown as a conductor's: a journal does not grow while a run waits for days."""
        self._refresh()
        if self.state.newest is None or not self.state.waits:
            return None
        repository = self.crew.ground.repository
        status = status_of(repository, self.state)
        if status is not None and self.state.conductor and not (status.ended or is_dead(self.state, self.here)):
            return None  # somebody else looks at them, or is to be replaced
        probe = StoreClock(repository.store, clock_key(self.run))
        now = probe.look(b"{}")
        coming = decide(self.state, self.crew.plan, self.crew.abilities, now)
        if not isinstance(coming, Look) or (coming.group and not self.state.waits_for(coming.group)):
            return None
        answers = self.crew.look(self.state, now, coming.group)
        if answers.holds or self._late(coming, answers, now):
            return None
        self.seen = answers.seen
        said = {"conditions": answers.seen, "ended": True}
        probe.look(encode_status(repository, probe.key, self.here.document(), said))
        return coming

    def now(self) -> datetime:
        """The store's time. Raises StoreError when nothing was conducted yet."""
        return self._clock.now()

    def cancel(self) -> None:
        """From another thread: what is under way is cut short, and `conduct` raises Cancelled."""
        self._cancelled.set()
        for control in list(self._controls):
            control.cancel()

    def _next(self) -> Next:
        if self._cancelled.is_set():
            self._nap(0.0)
        self._patiently(self._refresh)
        if self._lost:  # also where the run is over by now, or asks a person: that is the other's doing
            raise self._superseded()
        now, suspect = self._clock.now(), self._clock.suspect
        return decide(self.state, self.crew.plan, self.crew.abilities, now, suspect=suspect)

    def _gone_on(self, coming: Next, *, wait: bool, attend: bool) -> bool:
        """Whether the loop goes on after `coming`."""
        self._say(coming)
        match coming:
            case Do(effects):
                self._all(effects)
            case Look():
                return self._looked(coming, wait)
            case Ask(what, binding, shown, fresh):
                if fresh:
                    self._word(Asked(conductor=self.number, what=what, binding=binding, shown=shown))
                elif not attend:
                    return False
                else:
                    self._nap(LOOK_SECONDS)
            case Hold(state, reason, remedy, journaled):
                if not journaled:
                    self._word(Held(conductor=self.number, state=state, reason=reason, remedy=remedy))
                elif not attend:
                    return False
                else:
                    self._nap(LOOK_SECONDS)
            case Paused():
                if not attend:
                    return False
                self._nap(LOOK_SECONDS)
            case Wait(until=until):
                if not wait:
                    return False
                self._nap(min(LOOK_SECONDS, max(0.1, (until - self._clock.now()).total_seconds())))
            case Turn(group, reason):
                self._word(Turned(conductor=self.number, group=group, reason=reason))
            case Finish(outcome):
                self._word(Finished(conductor=self.number, outcome=outcome))
                release_all(self.crew.ground.repository, self.crew.plan, self.run)
        return True

    def _looked(self, coming: Look, wait: bool) -> bool:
        now = self._clock.now()
        answers = self.crew.look(self.state, now, coming.group)
        awaited = {name for name, seen in answers.seen.items() if seen.startswith(WAITING)}
        for name in (name for name in answers.seen if name in awaited ^ self._awaited):
            self.crew.tell("", f"{name}: {answers.seen[name]}")
        self._awaited = awaited
        self.seen = self.status["conditions"] = answers.seen
        if answers.holds:
            self._word(Met(conductor=self.number, answers=answers.seen, group=coming.group))
            return True
        if coming.group and not self.state.waits_for(coming.group):
            self._word(Waits(conductor=self.number, answers=answers.seen, group=coming.group))
        if what := self._late(coming, answers, now):
            leave = giving_up(self.state, self.crew.plan, coming.group)
            self._word(
                Held(
                    conductor=self.number,
                    state="waiting",
                    reason=f"{what} was waited for as long as the plan allows",
                    remedy=f"`failback run retry {self.run}` waits on, {leave} gives up",
                )
            )
            return True
        if wait:
            self._nap(LOOK_SECONDS)
        return wait

    def _late(self, coming: Look, answers: Answers, now: datetime) -> str:
        """What was waited for longer than the plan allows; empty: nothing, or a person knows."""
        if not coming.group and "waiting" in self.state.accepted:
            return ""
        allowed = self.crew.plan.deadlines.conditions
        since = waited_since(self.state, coming.group, now)
        late = allowed is not None and now - since > timedelta(seconds=allowed)
        return answers.expired or ("all conditions together" if late else "")

    # -- effects ---------------------------------------------------------------------------------------------------

    def _all(self, effects: tuple[str, ...]) -> None:
        """Side by side, as many as the plan allows. What one raises is raised when all have ended."""
        if len(effects) == 1:
            self._one(effects[0])
            return
        workers, name = min(len(effects), self.crew.plan.limits.parallel), f"conductor {self.number}"
        with ThreadPoolExecutor(workers, thread_name_prefix=name) as pool:
            futures = [pool.submit(self._one, effect) for effect in effects]
            try:
                for future in as_completed(futures):
                    if isinstance(future.exception(), Superseded | Cancelled):
                        break
            except BaseException:
                for control in list(self._controls):
                    control.cancel()
                for future in futures:
                    future.cancel()
                raise
        for future in futures:
            if not future.cancelled():
                future.result()

    def _one(self, name: str) -> None:
        before = self.state.effect(name)
        if before.ended is not None and not before.done:  # it failed in a way that passes
            self._nap(min(LONGEST_WAIT, 2.0**before.attempts))
        attempt = before.attempts + 1
        intended = Intended(conductor=self.number, effect=name, attempt=attempt)
        try:
            self._patiently(
                lambda: self._append(intended, unless=lambda entry: isinstance(entry.body, Decided | Taken))
            )
        except Moved:
            return  # somebody decided meanwhile: think again
        control = self._control(name)
        self._controls.add(control)
        if self._cancelled.is_set():
            control.cancel()
        try:
            ended = self._ended_as(name, attempt, control)
        finally:
            self._controls.discard(control)
            self._counters.pop(name, None)
            self._told.pop(name, None)
        self._patiently(lambda: self._append(ended, unless=lambda entry: isinstance(entry.body, Taken)))

    def _control(self, name: str) -> Controller:
        """What the effect counts and tells goes to whoever sits here, and into the next sign of life."""
        shown = self.crew.watch(name)

        def watch(counters: Counters) -> None:
            self._counters[name] = counters
            shown(counters)

        def tell(text: str) -> None:
            self._told[name] = text
            self.crew.tell(name, text)

        return _Awake(self._confirm, watch=watch, tell=tell)

    def _ended_as(self, name: str, attempt: int, control: Controller) -> Ended:
        verb, _, subject = name.partition("/")
        ended = Ended(conductor=self.number, effect=name, attempt=attempt, done=True)
        try:
            return ended.model_copy(update={"result": _plain(VERBS[verb](self._job(verb, subject, control)))})
        except FailbackError as error:
            if self._lost:
                raise self._superseded() from error
            if isinstance(error, Cancelled):
                raise
            return ended.model_copy(
                update={
                    "done": False,
                    "error": error.message,
                    "remedy": error.remedy,
                    "transient": isinstance(error, TRANSIENT) and self._patient(name, error, attempt),
                    "reason": _reason(error),
                }
            )

    def _patient(self, name: str, error: FailbackError, attempt: int) -> bool:
        """Whether it is tried again without asking. A dead writer elsewhere takes its time to be known as dead; what
        catches up waits as long for a rehearsal, or whoever else works on the place."""
        if not isinstance(error, SessionHeld) and not (isinstance(error, PlaceHeld) and name.startswith("catchup/")):
            return attempt < TRIES
        since = self.state.effect(name).since
        return since is None or self._clock.now() - since < EXPIRY + SILENT

    def _job(self, verb: str, subject: str, control: Controller) -> Job:
        return Job(
            run=self.run,
            plan=self.crew.plan,
            state=self.state,
            ground=replace(self.crew.ground, control=control),
            source=self.crew.source,
            verb=verb,
            subject=subject,
            confirm=self._confirm,
            now=self._clock.now,
        )

    def _confirm(self) -> None:
        self._refresh()
        if self._lost:
            raise self._superseded()

    def _superseded(self) -> Superseded:
        return Superseded(self._lost, remedy=f"nothing that this one still did counts; `failback run show {self.run}`")

    # -- the journal -----------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        with self._lock:
            try:
                self.journal.read()
            finally:  # also what was read before the store failed
                self._fold(self.journal.entries[self.state.number :])

    def _append(self, body: Model, *, unless: Callable[[Entry], bool]) -> Entry:
        """Raises Superseded once another conductor has taken over."""
        with self._lock:
            try:
                if not self._lost:
                    return self.journal.append(body, unless=unless)
            except Moved:
                self._fold(self.journal.entries[self.state.number :])
                if not self._lost:
                    raise
            finally:
                self._fold(self.journal.entries[self.state.number :])
            raise self._superseded()

    def _word(self, body: Model) -> None:
        """What the conductor says by itself; when a person was faster it thinks again."""
        with suppress(Moved):
            self._patiently(lambda: self._append(body, unless=lambda entry: isinstance(entry.body, Decided | Taken)))

    def _fold(self, entries: list[Entry]) -> None:
        for entry in entries:
            step(self.state, entry)
            if isinstance(entry.body, Taken) and self.number and entry.body.conductor > self.number:
                self._lost = f"run {self.run} is conducted by {who(entry.body.process)} by now"
                for control in list(self._controls):
                    control.cancel()

    def _patiently(self, action: Callable[[], object]) -> None:
        """Where the store is away: before anything was touched that ends the command; afterwards it is waited for, and
        that time counts for no deadline."""
        away: float | None = None
        while True:
            try:
                action()
                self.status.pop("commit-pending", None)
                if away is not None and (seconds := _boottime() - away) >= WORTH_SECONDS:
                    with suppress(StoreUnavailable):
                        self._append(Away(conductor=self.number, seconds=round(seconds, 1)), unless=_taken)
                return
            except StoreUnavailable as error:
                if not touched(self.state):
                    raise
                away = away if away is not None else _boottime()
                self.status["commit-pending"] = error.message
                self.crew.tell("", f"the repository is away, and is waited for; nothing is undone: {error.message}")
                self._nap(LOOK_SECONDS)

    # -- signs of life ---------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(FailbackError):
                self._beat_once()
                self._refresh()

    def _beat_once(self, *, ended: bool = False) -> None:
        with self._lock:
            progress = {name: progress_of(counters) for name, counters in list(self._counters.items())}
            said = _plain({**self.status, "progress": progress, "told": dict(self._told)})
            said["entries"] = self.state.number
        if ended:
            said["ended"] = True
        repository = self.crew.ground.repository
        self._clock.look(encode_status(repository, self._clock.key, self.here.document(), said))

    def _nap(self, seconds: float) -> None:
        self.crew.pause(seconds)
        if self._lost:
            raise self._superseded()
        if self._cancelled.is_set():
            raise Cancelled("the conducting was cancelled", remedy=f"`failback run conduct {self.run}` goes on")

    def _say(self, coming: Next) -> None:
        shown = str(coming) if not isinstance(coming, Do) else ", ".join(coming.effects)
        if self.status.get("next") != shown:
            self.status["next"] = shown


def _taken(entry: Entry) -> bool:
    return isinstance(entry.body, Taken)


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Awake(Controller):
    """Notices that the process, or its host, was asleep: then somebody else may conduct the run by now."""

    def __init__(self, confirm: Callable[[], None], *, watch: Watch, tell: Callable[[str], None]) -> None:
        super().__init__(watch=watch, tell=tell)
        self._confirm = confirm
        self._checked = _boottime()

    def check(self) -> None:
        super().check()
        if _boottime() - self._checked > SLEPT_SECONDS:
            self._confirm()
        self._checked = _boottime()


def _reason(error: FailbackError) -> str:
    if isinstance(error, SourceUnavailable):
        return "source-lost"
    if isinstance(error, Superseded | ForeignChange):
        return "foreign-change"
    return "clock-suspect" if isinstance(error, ClockSuspect) else ""


def _plain(result: Result) -> dict[str, Any]:
    """Values that JSON can hold."""
    plain: dict[str, Any] = json.loads(json.dumps(result, default=str))
    return plain
