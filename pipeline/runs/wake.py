"""Conduct all runs of a repository that are not over: which one is to be woken when, and what waking one means.

A run that waits for a person costs one LIST every few seconds, until there is a new word in its journal; one that waits
for its conditions is looked at without conducting it, so that its journal does not grow for days; one that waits for
time sleeps so long by the store's clock. All of it is found in the repository: nothing here is remembered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pipeline.errors import AccessDenied, Cancelled, FailbackError, FormatError, RunRefused, Superseded
from pipeline.home.control import Controller
from pipeline.home.site import Ground
from pipeline.plans.model import Plan
from pipeline.plans.stored import read
from pipeline.repository import Repository
from pipeline.runs.begin import check_pinned, run_names
from pipeline.runs.conductor import Conductor
from pipeline.runs.crew import crew_of, source_of
from pipeline.runs.decide import Ask, Hold, Look, Next, Over, Paused, Wait
from pipeline.runs.entries import Decided, Finished
from pipeline.runs.fold import fold
from pipeline.runs.journal import Journal

POLL_SECONDS = 3.0
"""Between two looks at journals, for what people decided."""
SEARCH_SECONDS = 15.0
"""Between two searches for runs that were begun."""
LOOK_SECONDS = 15.0
"""Between two looks at the conditions of one run, and at whether another conductor is still at work."""
FAILED_SECONDS = 30.0
FAILED_LONGEST = 600.0
UNREAD = (FormatError, AccessDenied)
"""What keeps one journal from being read, whatever becomes of the others."""
_NEVER = float("inf")

Grounds = Callable[[Plan, Controller], Ground]
Tell = Callable[[str, str], None]
"""(run or empty, line for people)."""


@dataclass(slots=True)
class _Watched:
    """`due`: monotonic time; words of people that come after entry `seen`, the last one that was looked at, make it
    due at once."""

    journal: Journal
    due: float = 0.0
    seen: int = 0
    busy: bool = False
    failures: int = 0
    told: str = ""
    """The last hindrance that was told."""


@dataclass(slots=True)
class Wakes:
    """All runs that are not over. Any thread may call any of it."""

    repository: Repository
    grounds: Grounds
    tell: Tell = field(default=lambda _run, _text: None)
    _watched: dict[str, _Watched] = field(default_factory=dict)
    _broken: dict[str, _Watched] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)
    _conductors: set[Conductor] = field(default_factory=set)
    _searched: float = -_NEVER
    _stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self) -> list[str]:
        """Runs to be woken now; each is busy from here on until it was worked on. Raises StoreError."""
        now = time.monotonic()
        if now - self._searched >= SEARCH_SECONDS:
            self._search()
            self._searched = now
        found = []
        for run, watched in list(self._watched.items()):
            if watched.busy or self._stopped.is_set():
                continue
            try:
                watched.journal.read()
            except UNREAD as error:  # this run stands still until it is mended; the others do not
                self._hindered(run, watched, error.message)
                continue
            # Also what was read before a look failed in the midst of it.
            new = watched.journal.entries[watched.seen :]
            watched.seen = watched.journal.newest
            if any(isinstance(entry.body, Finished) for entry in new):
                self._drop(run)
                continue
            word = any(isinstance(entry.body, Decided) for entry in new)
            watched.due = 0.0 if word else watched.due
            if watched.due <= now:
                watched.busy = True
                found.append(run)
        return found

    def work(self, run: str) -> None:
        """Conduct one run as far as it goes. What hinders is told, and it is tried again later."""
        watched = self._watched.get(run)
        if watched is None:
            return  # over by now
        try:
            self._worked(run, watched)
            watched.failures, watched.told = 0, ""
        except (RunRefused, Superseded) as error:
            self._hindered(run, watched, error.message.partition(", last seen")[0])
            watched.due = time.monotonic() + LOOK_SECONDS
        except Cancelled:
            watched.due = 0.0
        except Exception as error:  # noqa: BLE001 - one run's bug must not end the others; it is told, and held back
            watched.failures += 1
            wait = min(FAILED_LONGEST, FAILED_SECONDS * 2.0 ** (watched.failures - 1))
            watched.due = time.monotonic() + wait
            self.tell(run, f"{_said(error)}; tried again in {wait:.0f} s")
        finally:
            watched.busy = False

    def forget(self, run: str) -> None:
        """It was due, and nobody works on it."""
        if (watched := self._watched.get(run)) is not None:
            watched.busy = False

    def stop(self) -> None:
        """What is under way is cut short; nothing new begins."""
        with self._lock:
            self._stopped.set()
            for conductor in self._conductors:
                conductor.cancel()

    @property
    def working(self) -> bool:
        with self._lock:
            return bool(self._conductors)

    # -- one run ---------------------------------------------------------------------------------------------------

    def _worked(self, run: str, watched: _Watched) -> None:
        journal = Journal(self.repository, run)
        journal.read()
        state = fold(run, journal.entries)
        if state.outcome is not None:
            self._drop(run)
            return
        stored = read(self.repository, state.plan, state.version)
        check_pinned(state, stored)
        plan = stored.plan
        control = Controller(tell=lambda text: self.tell(run, text))
        ground = self.grounds(plan, control)
        source = source_of(ground, plan, control, run=run)
        try:
            crew = crew_of(ground, plan, source, control, tell=lambda effect, text: self.tell(run, f"{effect} {text}"))
            conductor = Conductor(replace(crew, pause=lambda seconds: self._pause(conductor, seconds)), run)
            with self._lock:
                self._conductors.add(conductor)
                if self._stopped.is_set():
                    conductor.cancel()
            try:
                if conductor.only_waits():
                    watched.due = time.monotonic() + LOOK_SECONDS
                    watched.seen = conductor.state.number
                    return
                coming = conductor.conduct(wait=False)
            finally:
                with self._lock:
                    self._conductors.discard(conductor)
            self._stopped_at(run, watched, conductor, coming)
        finally:
            source.close()

    def _pause(self, conductor: Conductor, seconds: float) -> None:
        if self._stopped.wait(seconds):
            conductor.cancel()

    def _stopped_at(self, run: str, watched: _Watched, conductor: Conductor, coming: Next) -> None:
        now = time.monotonic()
        watched.seen = conductor.state.number
        match coming:
            case Over(outcome):
                self.tell(run, outcome)
                self._drop(run)
            case Ask(what=what):
                self.tell(run, f"asks for approval: {what}")
                watched.due = _NEVER
            case Hold(state=state, reason=reason):
                self.tell(run, f"{state}: {reason}")
                watched.due = _NEVER
            case Paused(by):
                self.tell(run, f"paused by {by}")
                watched.due = _NEVER
            case Wait(until=until):
                watched.due = now + max(0.0, (until - conductor.now()).total_seconds())
            case Look():
                watched.due = now + LOOK_SECONDS

    # -- all runs --------------------------------------------------------------------------------------------------

    def _search(self) -> None:
        for run in run_names(self.repository):
            if run in self._watched or run in self._over:
                continue
            journal = Journal(self.repository, run)
            try:
                if (last := journal.last()) is not None and isinstance(last.body, Finished):
                    self._over.add(run)
                    continue
                journal.read()
                state = fold(run, journal.entries)
            except UNREAD as error:
                self._hindered(run, self._broken.setdefault(run, _Watched(journal)), error.message)
                continue
            if not journal.entries:
                continue
            waits = state.paused or (state.stand is not None and not state.cancelled)
            self._watched[run] = _Watched(journal, _NEVER if waits else 0.0, state.number)
            self.tell(run, "is looked after" + (", and waits for a person" if waits else ""))

    def _hindered(self, run: str, watched: _Watched, why: str) -> None:
        if watched.told != why:
            self.tell(run, why)
        watched.told = why

    def _drop(self, run: str) -> None:
        self._watched.pop(run, None)
        self._over.add(run)


def _said(error: Exception) -> str:
    if isinstance(error, FailbackError):
        return error.message
    bug = "" if isinstance(error, OSError) else " (a bug in failback)"  # such as a state folder without room
    return f"{type(error).__name__}: {error}{bug}"
