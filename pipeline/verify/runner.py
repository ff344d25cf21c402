"""Run checks against a machine, side by side.

The calling thread decides; each attempt of a hook has a thread of its own, so that a check that waits for its next
attempt holds nobody up and a hook that hangs can be left behind.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import FailbackError, Unsupported, UsageError
from pipeline.progress import Counters
from pipeline.target import Control
from pipeline.verify.alive import Alive
from pipeline.verify.checks import Check, hook_of, validate
from pipeline.verify.clock import Clock, MonotonicClock
from pipeline.verify.hook import Attempt, Hook, Outcome
from pipeline.verify.results import CheckResult, Results, Status
from pipeline.verify.subject import Subject

PARALLEL = 8
"""Attempts at a time."""
LOOK_SECONDS = 1.0
"""Between looks at the machine itself."""
GRACE_SECONDS = 5.0
"""By which a hook may be late before it is left behind; also how long attempts may take to end when all ends."""

_Answer = tuple[Attempt, Outcome | BaseException]
logger = logging.getLogger("failback")


@dataclass(slots=True)
class _Task:
    """One check on its way."""

    check: Check
    hook: Hook[Any]
    begun: float | None = None
    """When it could begin. None: it waits for others."""
    due: float = 0.0
    attempts: int = 0
    attempt: Attempt | None = None
    thread: threading.Thread | None = None
    late: float = 0.0
    """When the attempt that runs is given up."""
    last: str = ""
    """What the last attempt saw."""
    result: CheckResult | None = None

    @property
    def busy(self) -> bool:
        return self.attempt is not None


@dataclass(slots=True)
class _Run:
    subject: Subject
    control: Control
    tasks: dict[str, _Task]
    clock: Clock
    parallel: int
    inbox: queue.Queue[_Answer] = field(default_factory=queue.Queue)
    awaited: str = ""

    def begin_and_skip(self, now: float) -> None:
        """Checks whose dependencies are settled begin, or are skipped; a skipped one settles others."""
        changed = True
        while changed:
            changed = False
            for task in self.tasks.values():
                if task.begun is not None or task.result is not None:
                    continue
                before = [self.tasks[name].result for name in task.check.after]
                broken = [result for result in before if result and result.status not in ("passed", "not applicable")]
                if broken:
                    self.settle(task, "skipped", f"depends on {broken[0].name}, which {_became(broken[0].status)}", now)
                    changed = True
                elif all(before):
                    task.begun = task.due = now

    def start_due(self, now: float, end: float) -> None:
        """Attempts whose time has come, as many as may run; those that wait longest first."""
        running = sum(task.busy for task in self.tasks.values())
        ready = [t for t in self.tasks.values() if t.begun is not None and not t.result and not t.busy and t.due <= now]
        for task in sorted(ready, key=lambda task: task.due)[: max(0, self.parallel - running)]:
            seconds = min(task.check.timeout, end - now)
            if task.attempts and task.begun is not None:
                seconds = min(seconds, max(1.0, task.begun + task.check.within - now))
            task.attempts += 1
            ended = tuple(other.result for other in self.tasks.values() if other.result is not None)
            task.attempt = Attempt(task.check.name, task.attempts, seconds, so_far=ended)
            task.late = now + seconds + GRACE_SECONDS
            task.thread = threading.Thread(
                target=_look, args=(task.hook, self.subject, task.attempt, self.inbox), daemon=True
            )
            task.thread.start()

    def take(self, answer: _Answer, now: float) -> None:
        """What an attempt brought. One that was left behind comes too late."""
        attempt, found = answer
        task = self.tasks[attempt.check]
        if task.attempt is not attempt:
            return
        task.attempt = task.thread = None
        if isinstance(found, Unsupported):
            found = Outcome("failed", found.message)
        elif isinstance(found, UsageError):
            self.settle(task, "error", str(found), now)
            return
        elif isinstance(found, FailbackError):
            found = Outcome("failed", found.message)
        elif isinstance(found, BaseException):
            logger.error("hook %s of check %s", task.check.hook, task.check.name, exc_info=found)
            self.settle(task, "error", f"bug in the hook {task.check.hook}: {type(found).__name__}: {found}", now)
            return
        task.last = found.seen
        retry = task.check.retry or task.hook.retry
        again = now + retry.delay(task.attempts)
        if found.status != "failed" or found.final or again > (task.begun or 0.0) + task.check.within:
            self.settle(task, found.status, found.seen, now, found)
        else:
            task.due = again

    def leave_behind(self, now: float) -> None:
        """Hooks that do not come back in their time."""
        for task in self.tasks.values():
            if task.attempt and now >= task.late:
                task.attempt.cancelled.set()
                seconds = task.attempt.seconds
                task.attempt = task.thread = None
                self.settle(task, "error", f"the hook {task.check.hook} did not come back within {seconds:.0f} s", now)

    def end_all(self, why: str, now: float) -> None:
        """Nothing more can be found out."""
        for task in self.tasks.values():
            if task.result is not None:
                continue
            if task.attempts:
                before = f"; before: {task.last}" if task.last else ""
                self.settle(task, "failed", f"{why}{before}", now)
            else:
                self.settle(task, "skipped", why, now)

    def settle(self, task: _Task, status: Status, seen: str, now: float, found: Outcome | None = None) -> None:
        check = task.check
        seconds = 0.0 if task.begun is None else now - task.begun
        artifacts = found.artifacts if found else ()
        task.result = CheckResult(
            check.name, check.hook, check.level, status, seen, task.attempts, seconds, tuple(artifacts)
        )
        self.control.tell(f"{check.name}: {status}: {seen}")

    def show(self) -> None:
        """What is waited for, to whoever watches; only when that has changed."""
        names = ", ".join(task.check.name for task in self.tasks.values() if task.begun is not None and not task.result)
        if names and names != self.awaited:
            self.awaited = names
            self.control.watch(Counters(phase="waiting for", disk=names))

    def pause(self, now: float, until: float) -> float:
        """Seconds until something may have to be done, unless an answer comes before."""
        times = [until]
        for task in self.tasks.values():
            if task.busy:
                times.append(task.late)
            elif task.begun is not None and task.result is None and task.due > now:
                times.append(task.due)
        return max(0.0, min(times) - now)

    def cancel(self) -> None:
        """No attempt goes on when this returns, unless its hook does not listen."""
        threads = []
        for task in self.tasks.values():
            if task.attempt and task.thread:
                task.attempt.cancelled.set()
                threads.append(task.thread)
        wait_until = MonotonicClock().now() + GRACE_SECONDS
        for thread in threads:
            thread.join(max(0.0, wait_until - MonotonicClock().now()))


def run_checks(
    checks: Sequence[Check],
    subject: Subject,
    control: Control,
    *,
    deadline: float | None = None,
    parallel: int = PARALLEL,
    clock: Clock | None = None,
) -> Results:
    """Run all checks and say what they found, in the order given. `deadline` in seconds from now, for all of them.

    A machine that goes off, panics or stays paused ends the checks at once. Raises UsageError when a check is set up
    wrongly (nothing has run then), and what `control.check` raises; attempts that run are ended then.
    """
    clock = clock or MonotonicClock()
    validate(checks, "the checks")
    run = _Run(subject, control, {check.name: _Task(check, hook_of(check)) for check in checks}, clock, parallel)
    alive = Alive(subject)
    started = clock.now()
    end = float("inf") if deadline is None else started + deadline
    look_at = started
    ended = ""
    try:
        while any(task.result is None for task in run.tasks.values()):
            control.check()
            now = clock.now()
            if now >= look_at:
                ended = alive.look(now)
                look_at = now + LOOK_SECONDS
            if not ended and now >= end:
                ended = f"the checks had {deadline:.0f} s"
            if ended:
                run.end_all(ended, now)
                break
            run.leave_behind(now)
            run.begin_and_skip(now)
            run.start_due(now, end)
            run.show()
            busy = any(task.busy for task in run.tasks.values())
            answer = clock.wait(run.inbox, run.pause(now, min(look_at, end)), busy=busy)
            if answer is not None:
                run.take(answer, clock.now())
    finally:
        run.cancel()
    results = tuple(task.result for task in run.tasks.values() if task.result is not None)
    return Results(subject.machine.name, results, clock.now() - started, ended, alive.remark)


def _look(hook: Hook[Any], subject: Subject, attempt: Attempt, inbox: queue.Queue[_Answer]) -> None:
    """The thread of one attempt."""
    try:
        inbox.put((attempt, hook.look(subject, attempt)))
    except BaseException as error:  # noqa: BLE001 - whatever a hook does wrong, the others are looked at
        inbox.put((attempt, error))


def _became(status: Status) -> str:
    return {"failed": "failed", "skipped": "was skipped", "error": "is in error"}.get(status, status)
