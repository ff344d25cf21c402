"""Begin runs, and find them."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass

from manifests.names import is_run_name, plan_key, run_journal_prefix
from pipeline.errors import CatalogueError, RunRefused
from pipeline.plans.stored import Stored, read
from pipeline.repository import Repository
from pipeline.runs.entries import Finished, Purpose, Started
from pipeline.runs.fold import RunState
from pipeline.runs.journal import Journal, Moved, state_of
from pipeline.runs.store_clock import StoreClock

_ALL = "runs/"
_ATTEMPTS = 10
"""Beginnings at the same moment as others'."""


@dataclass(frozen=True, slots=True)
class Begun:
    run: str
    fresh: bool
    """False: one of this plan that is not over yet goes on."""


def begin(repository: Repository, stored: Stored, purpose: Purpose = "cutover") -> Begun:
    """A new run of this version of a plan, or the one of this plan that is not over yet: the same command goes on.

    Raises RunRefused when another version's is not over, and where the store cannot keep two from cutting over at once
    and nobody is asked before.
    """
    plan = stored.plan
    if not repository.conditional_put and not plan.approvals.cutover and purpose == "cutover":
        raise RunRefused(
            f"{repository.store.name} has no conditional PUT: two conductors could both believe that they own a "
            f"machine, so a cutover of {plan.name} that asks nobody is refused",
            remedy="set `approvals: {cutover: true}` in the plan, or move the repository to a store that has it",
        )
    for _attempt in range(_ATTEMPTS):
        for state in _not_over(repository, plan.name, purpose):
            if state.version != stored.version:
                raise RunRefused(
                    f"run {state.run} of {plan.name}@{state.version} is not over",
                    remedy=f"`failback run show {state.run}`; `failback run cancel` or `rollback` ends it",
                )
            check_pinned(state, stored)
            return Begun(state.run, fresh=False)
        name = f"{plan.name}-{_now(repository)}-{secrets.token_hex(3)}"
        journal = Journal(repository, name)
        began = journal.append(
            Started(plan=plan.name, version=stored.version, digest=stored.digest, purpose=purpose)
        ).time
        # Two may have seen none and begun one each: the later one is given up, or both where nobody can say.
        others = [s for s in _not_over(repository, plan.name, purpose) if s.run != name]
        if not any(s.started is not None and s.started <= began for s in others):
            return Begun(name, fresh=True)
        try:
            journal.append(Finished(conductor=0, outcome="cancelled"), unless=lambda _entry: True)
        except Moved:
            return Begun(name, fresh=True)  # it is conducted already
        time.sleep(secrets.randbelow(1000) / 1000)
    raise RunRefused(
        f"others begin runs of {plan.name} at the same moment, again and again",
        remedy="find out who, and try again: `failback run list`",
    )


def _not_over(repository: Repository, plan: str, purpose: Purpose) -> list[RunState]:
    return [s for s in runs(repository, plan) if s.outcome is None and s.purpose == purpose]


def run_names(repository: Repository) -> list[str]:
    """All, oldest first of each plan."""
    found: list[str] = []
    after = ""
    # One key per run: the next listing starts behind all of this one.
    while (info := next(iter(repository.store.list(_ALL, after=after)), None)) is not None:
        name = info.key.split("/")[1]
        if is_run_name(name):
            found.append(name)
        after = f"{_ALL}{name}/~"
    return found


def runs(repository: Repository, plan: str = "") -> list[RunState]:
    """What all of them, or those of one plan, came to. A journal that was never begun is none."""
    found = []
    for name in run_names(repository):
        if plan and not is_of(name, plan):
            continue
        state = state_of(Journal(repository, name))
        if state.number and (not plan or state.plan == plan):
            found.append(state)
    return found


def is_of(run: str, plan: str) -> bool:
    """Whether a run with this name is one of that plan (FORMAT.md, section 18)."""
    return re.fullmatch(rf"{re.escape(plan)}-\d{{8}}-\d{{6}}-[0-9a-f]{{6}}", run) is not None


def find_run(repository: Repository, name: str) -> tuple[RunState, Stored]:
    """A run by its name, or by its plan's: the newest of it. Raises CatalogueError, CorruptObject for one whose journal
    has a gap, also at its beginning, and RunRefused when its plan is not the one that it began with any more."""
    if next(iter(repository.store.list(run_journal_prefix(name))), None) is None:
        of_plan = [state for state in runs(repository, name) if state.started is not None]
        if not of_plan:
            raise CatalogueError(
                f"there is no run {name!r}, and no plan of that name ran", remedy="`failback run list`"
            )
        state = max(of_plan, key=lambda s: (s.outcome is None, s.started))
    else:
        state = state_of(Journal(repository, name))
    stored = read(repository, state.plan, state.version)
    check_pinned(state, stored)
    return state, stored


def check_pinned(state: RunState, stored: Stored) -> None:
    """Raises RunRefused unless `stored` is, to the letter, what the run began with."""
    if state.digest != stored.digest:
        raise RunRefused(
            f"run {state.run} executes the {stored.label} with digest {state.digest[:16]}; the one in the repository "
            f"has {stored.digest[:16]}: somebody wrote over it",
            remedy=f"bring `{plan_key(stored.plan.name, stored.version)}` back from an older version or a copy of the "
            "bucket, and find out who may write there; a run goes on with its own plan only",
        )


def _now(repository: Repository) -> str:
    return f"{StoreClock(repository.store, 'runs/clock').look(b'{}'):%Y%m%d-%H%M%S}"
