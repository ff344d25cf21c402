"""`failback run approve`, `rollback`, ...: a person's word. The run goes on from here, unless somebody conducts it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.run.conduct import RunArgument
from pipeline.cli.run.conducting import AttendOption, WaitOption, conducted
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.plans.stored import Stored
    from pipeline.runs.entries import Decided
    from pipeline.runs.fold import RunState


class YesNo(StrEnum):
    YES = "yes"
    NO = "no"


ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the run's journal.")]
ByOption = Annotated[
    str, typer.Option("--by", metavar="NAME", help="Who decides. Default: the user and host of this command.")
]
ExpectOption = Annotated[
    int,
    typer.Option("--expect", metavar="N", min=0, help="Refuse when the run's journal has moved on from entry N."),
]
OnOption = Annotated[
    bool, typer.Option("--conduct/--no-conduct", help="Then go on with the run from here, unless somebody does.")
]
WhatOption = Annotated[str, typer.Option("--what", metavar="QUESTION", help="Where several are asked: which one.")]
GroupOption = Annotated[str, typer.Option("--group", metavar="NAME", help="Where the plan has several groups.")]


def add_words(app: typer.Typer) -> None:
    """All of them, in the order of a run."""
    for word in (approve, reject, answer, flag, pause, resume, hold, retry, override, split, rollback, commit, cancel):
        app.command(word.__name__)(word)


@command
def approve(
    invocation: Invocation, run: RunArgument, what: WhatOption = "", reason: ReasonOption = "", by: ByOption = "",
    expect: ExpectOption = 0, conduct: OnOption = True, wait: WaitOption = True, attend: AttendOption = False,
) -> Ending:  # fmt: skip
    """Say yes to what a run asks: its cutover, its gate, its commit. Good for this plan, set and targets only."""
    return _answered(invocation, "approve", run, what, reason, by, expect, conduct, wait, attend)


@command
def reject(
    invocation: Invocation, run: RunArgument, what: WhatOption = "", reason: ReasonOption = "", by: ByOption = "",
    expect: ExpectOption = 0, conduct: OnOption = True, wait: WaitOption = True, attend: AttendOption = False,
) -> Ending:  # fmt: skip
    """Say no to what a run asks. At the gate the group goes back to the takeover site."""
    return _answered(invocation, "reject", run, what, reason, by, expect, conduct, wait, attend)


@command
def answer(
    invocation: Invocation, run: RunArgument,
    machine: Annotated[str, typer.Argument(metavar="MACHINE", help="Whose check of hook `operator` waits.")],
    word: Annotated[YesNo, typer.Argument(metavar="yes|no", help="Whether it works, as you saw it.")],
    reason: ReasonOption = "", by: ByOption = "", expect: ExpectOption = 0, conduct: OnOption = True,
    wait: WaitOption = True, attend: AttendOption = False,
) -> Ending:  # fmt: skip
    """Say whether a machine works, where a check of its asks a person. Counts for all of its checks that do."""
    said = {"verb": "answer", "what": machine, "yes": word is YesNo.YES, "reason": reason}
    return _said(invocation, run, said, by, expect, conduct, wait, attend)


@command
def flag(
    invocation: Invocation, run: RunArgument,
    name: Annotated[str, typer.Argument(metavar="FLAG", help="As a condition of kind `flag` calls it.")],
    reason: ReasonOption = "", by: ByOption = "", expect: ExpectOption = 0, conduct: OnOption = True,
    wait: WaitOption = True, attend: AttendOption = False,
) -> Ending:  # fmt: skip
    """Set a flag that a condition of the plan waits for."""
    from pipeline.runs.begin import find_run

    _state, stored = find_run(invocation.open_repository(), run)
    waited = [str(c.settings.get("flag")) for c in stored.plan.conditions if c.kind == "flag"]
    if name not in waited:
        known = f"only {', '.join(waited)}" if waited else "none"
        invocation.warn(f"no condition of kind flag of {stored.label} waits for {name!r}: {known}")
    return _said(invocation, run, {"verb": "flag", "what": name, "reason": reason}, by, expect, conduct, wait, attend)


@command
def pause(invocation: Invocation, run: RunArgument, reason: ReasonOption = "", by: ByOption = "") -> Ending:
    """Begin nothing new until `resume`; what is on its way is finished."""
    return _said(invocation, run, {"verb": "pause", "reason": reason}, by, 0, False, False, False)


@command
def resume(
    invocation: Invocation, run: RunArgument, reason: ReasonOption = "", by: ByOption = "", conduct: OnOption = True,
    wait: WaitOption = True, attend: AttendOption = False,
) -> Ending:  # fmt: skip
    """Go on after `pause`."""
    return _said(invocation, run, {"verb": "resume", "reason": reason}, by, 0, conduct, wait, attend)


@command
def hold(invocation: Invocation, run: RunArgument, reason: ReasonOption = "", by: ByOption = "") -> Ending:
    """Let nothing go on by itself, whatever happens, until a person decides: retry, rollback, split."""
    return _said(invocation, run, {"verb": "hold", "reason": reason}, by, 0, False, False, False)


@command
def retry(
    invocation: Invocation, run: RunArgument, reason: ReasonOption = "", by: ByOption = "", expect: ExpectOption = 0,
    conduct: OnOption = True, wait: WaitOption = True, attend: AttendOption = False,
) -> Ending:  # fmt: skip
    """Try again what a run is held for."""
    return _said(invocation, run, {"verb": "retry", "reason": reason}, by, expect, conduct, wait, attend)


@command
def override(
    invocation: Invocation, run: RunArgument,
    machine: Annotated[list[str], typer.Argument(metavar="MACHINE...", help="Those that you vouch for being off.")],
    home: Annotated[
        bool, typer.Option("--home", help="Off at home, which cannot be asked any more, on the way back.")
    ] = False,
    reason: ReasonOption = "", by: ByOption = "", expect: ExpectOption = 0, conduct: OnOption = True,
    wait: WaitOption = True, attend: AttendOption = False,
) -> Ending:  # fmt: skip
    """Vouch for machines that nobody can prove to be off: their newest points come home, what was written since is
    lost. With --home: the takeover side starts though home cannot be asked. If one still runs, there will be two of it.
    """
    about = "home" if home else ""
    word = {"verb": "override", "what": about, "machines": tuple(machine), "reason": reason}
    return _said(invocation, run, word, by, expect, conduct, wait, attend)


@command
def split(
    invocation: Invocation, run: RunArgument,
    machine: Annotated[list[str], typer.Argument(metavar="MACHINE...", help="Those that stay at the takeover site.")],
    across: Annotated[
        bool, typer.Option("--across", help="Dependencies between the two sites are known and accepted.")
    ] = False,
    reason: ReasonOption = "", by: ByOption = "", expect: ExpectOption = 0, conduct: OnOption = True,
    wait: WaitOption = True, attend: AttendOption = False,
) -> Ending:  # fmt: skip
    """Let some machines of a group stay where they are, and the others come home."""
    from pipeline.runs.begin import find_run
    from pipeline.runs.commands import crossing
    from pipeline.runs.line import ordered

    state, stored = find_run(invocation.open_repository(), run)
    group = next((g for g in ordered(stored.plan) if set(machine) <= set(g.machines)), None)
    crossed = crossing(stored.plan, group.name, (*machine, *state.stay)) if group else []
    if crossed and not across:
        raise UsageError(
            f"this would cross the sites: {'; '.join(crossed)}", remedy="say --across when that works, or roll back"
        )
    word = {"verb": "split", "machines": tuple(machine), "reason": "; ".join([*([reason] if reason else []), *crossed])}
    return _said(invocation, run, word, by, expect, conduct, wait, attend)


@command
def rollback(
    invocation: Invocation, run: RunArgument, group: GroupOption = "",
    discard: Annotated[
        bool, typer.Option("--discard", help="Give up what was written at home since the gate opened.")
    ] = False,
    reason: ReasonOption = "", by: ByOption = "", expect: ExpectOption = 0, conduct: OnOption = True,
    wait: WaitOption = True, attend: AttendOption = False,
) -> Ending:  # fmt: skip
    """Go back: home is switched off and proved so, then the takeover side runs again."""
    word = {"verb": "rollback", "what": _group(invocation, run, group), "discard": discard, "reason": reason}
    return _said(invocation, run, word, by, expect, conduct, wait, attend)


@command
def commit(
    invocation: Invocation, run: RunArgument, group: GroupOption = "", reason: ReasonOption = "", by: ByOption = "",
    expect: ExpectOption = 0, conduct: OnOption = True, wait: WaitOption = True, attend: AttendOption = False,
) -> Ending:  # fmt: skip
    """Accept what runs at home: there is no way back after it."""
    word = {"verb": "commit", "what": f"commit/{_group(invocation, run, group)}", "reason": reason}
    return _said(invocation, run, word, by, expect, conduct, wait, attend)


@command
def cancel(
    invocation: Invocation, run: RunArgument, reason: ReasonOption = "", by: ByOption = "", conduct: OnOption = True
) -> Ending:
    """End a run that has not touched the takeover side yet."""
    return _said(invocation, run, {"verb": "cancel", "reason": reason}, by, 0, conduct, False, False)


def _answered(
    invocation: Invocation, verb: str, run: str, what: str, reason: str, by: str, expect: int, conduct: bool,
    wait: bool, attend: bool,
) -> Ending:  # fmt: skip
    from pipeline.runs.begin import find_run
    from pipeline.runs.commands import question

    state, stored = find_run(invocation.open_repository(), run)
    asked, binding = question(state, stored.plan, what)
    word = {"verb": verb, "what": asked, "binding": binding, "reason": reason}
    return _said(invocation, run, word, by, expect, conduct, wait, attend)


def _said(
    invocation: Invocation, run: str, word: dict[str, Any], by: str, expect: int, conduct: bool, wait: bool,
    attend: bool,
) -> Ending:  # fmt: skip
    from pipeline.errors import ConductedElsewhere
    from pipeline.runs.begin import find_run
    from pipeline.runs.commands import tell
    from pipeline.runs.entries import Decided

    repository = invocation.open_repository()
    state, stored = find_run(repository, run)
    decided = Decided(**word)
    entry = tell(repository, state.run, stored.plan, decided, by=by, expect=expect)
    invocation.output.say(f"{_shown(decided)}: entry {entry.number} of run {state.run}, by {entry.by}")
    if conduct:
        try:
            return conducted(invocation, state.run, stored, wait=wait, attend=attend)
        except ConductedElsewhere as refused:
            invocation.note(f"{refused.message}: it goes on there")
    return _ended(state, stored, entry.number)


def _ended(state: RunState, stored: Stored, number: int) -> Ending:
    return Ending(values={"run": state.run, "plan": stored.label, "entry": number})


def _shown(word: Decided) -> str:
    about = " ".join(word.machines) or word.what
    if word.verb == "answer":
        about += " yes" if word.yes else " no"
    return f"{word.verb} {about}".strip()


def _group(invocation: Invocation, run: str, given: str) -> str:
    """The one that is named, or the only one of the plan."""
    from pipeline.runs.begin import find_run

    _state, stored = find_run(invocation.open_repository(), run)
    names = [group.name for group in stored.plan.groups]
    if given or len(names) == 1:
        return given or names[0]
    raise UsageError("the plan has several groups", remedy=f"name one with --group: {', '.join(names)}")
