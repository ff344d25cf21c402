"""What people may tell a run, and when: every word is an entry of the journal, refused where it does not fit."""

from __future__ import annotations

from manifests.names import run_prefix
from pipeline.errors import RunRefused
from pipeline.plans.model import Plan
from pipeline.repository import Repository
from pipeline.runs.decide import binding_of, gate_opened, looked_since, settled, touched
from pipeline.runs.entries import Decided, Entry
from pipeline.runs.fold import RunState, open_question, step
from pipeline.runs.journal import Journal, Moved, state_of
from pipeline.runs.line import ordered, plan_group
from pipeline.runs.status import check_whole


def tell(repository: Repository, run: str, plan: Plan, word: Decided, *, by: str = "", expect: int = 0) -> Entry:
    """Append a person's word. `expect`: the journal's number that the person saw (0: whatever it is now).

    Raises RunRefused when the word does not fit, or when another person's was faster.
    """
    run_prefix(run)
    journal = Journal(repository, run, by=by)
    state = state_of(journal)
    if state.number == 0:
        raise RunRefused(f"there is no run {run}", remedy="`failback run list` shows them")
    check_whole(repository, state)
    if expect and state.number != expect:
        newest = journal.entries[-1]
        raise RunRefused(
            f"run {run} has moved on: entry {state.number} is a {newest.body.kind} by {newest.by}, "
            f"you saw entry {expect}",
            remedy=f"look again: `failback run show {run}`",
        )
    if word.verb == "commit" and not word.binding:
        word = word.model_copy(update={"binding": binding_of(state, plan, word.what, _group_of(plan, word))[0]})
    check(state, plan, word)
    unfit: list[RunRefused] = []

    def refused(entry: Entry) -> bool:
        """The run may have gone on meanwhile to where this word fits no more."""
        step(state, entry)
        if _another(entry):
            return True
        try:
            check(state, plan, word)
        except RunRefused as error:
            unfit.append(error)
        return bool(unfit)

    try:
        return journal.append(word, unless=refused)
    except Moved:
        if unfit:
            raise unfit[0] from None
        other = next(entry for entry in reversed(journal.entries) if _another(entry))
        raise RunRefused(
            f"{other.by} was faster: {getattr(other.body, 'verb', other.body.kind)}",
            remedy=f"look again: `failback run show {run}`",
        ) from None


def _another(entry: Entry) -> bool:
    return entry.body.kind in ("decided", "turned", "finished")


def check(state: RunState, plan: Plan, word: Decided) -> None:
    """Raises RunRefused."""
    if state.outcome is not None:
        raise RunRefused(f"run {state.run} is over: {state.outcome}", remedy="start another one")
    refusal = _REFUSALS.get(word.verb)
    if refusal is not None and (why := refusal(state, plan, word)):
        raise RunRefused(f"{word.verb} does not fit: {why}", remedy=f"look again: `failback run show {state.run}`")


def question(state: RunState, plan: Plan, what: str = "") -> tuple[str, str]:
    """(what is asked, its binding): the one named, or the only one that is open. Raises RunRefused."""
    names = [q.what for q in state.questions.values() if _open(state, plan, q.what)]
    if not what and len(names) == 1:
        what = names[0]
    if what not in state.questions or (not what and len(names) != 1):
        where = f"look again: `failback run show {state.run}`"
        if not names:
            raise RunRefused(f"run {state.run} asks nothing now", remedy=where)
        asked = ", ".join(names)
        if what:
            raise RunRefused(f"run {state.run} does not ask {what}, but {asked}", remedy=where)
        raise RunRefused(f"run {state.run} asks several things: {asked}", remedy="name one with --what")
    return what, state.questions[what].binding


def _open(state: RunState, plan: Plan, what: str) -> bool:
    if settled(state, plan, what):
        return False
    answer = state.answers.get(what)
    if state.stand is not None and state.stand.state == "rejected":  # approved after all
        return open_question(state, what) or (answer is not None and not answer.yes)
    return open_question(state, what) or (state.stand is not None and state.stand.state == "approval-expired")


def _group_of(plan: Plan, word: Decided) -> str:
    """The group that a commit is about. Raises RunRefused."""
    name = word.what.partition("/")[2]
    if name not in {group.name for group in plan.groups}:
        raise RunRefused(f"commit does not fit: there is no group {name!r}", remedy="name one of the plan")
    return name


def crossing(plan: Plan, group: str, stay: tuple[str, ...]) -> list[str]:
    """Dependencies that would cross the sites: "web-1 (takeover) needs db (home)"."""
    machines = plan_group(plan, group).machines
    side = {m: "takeover" if m in stay else "home" for m in machines}
    return [
        f"{m} ({side[m]}) needs {other} ({side[other]})"
        for m in machines
        for other in plan.machines[m].needs
        if other in side and side[other] != side[m]
    ]


# -- what does not fit -------------------------------------------------------------------------------------------------


def _answering(state: RunState, plan: Plan, word: Decided) -> str:
    asked = state.questions.get(word.what)
    if asked is None:
        return f"nobody asked {word.what!r}"
    if asked.binding != word.binding:
        return f"{word.what} was asked anew, about another plan, set or target"
    if settled(state, plan, word.what):
        group = word.what.partition("/")[2]
        return f"{group} goes back" if group in state.back else f"{word.what} was approved, and is under way or done"
    return ""


def _cancelling(state: RunState, _plan: Plan, _word: Decided) -> str:
    return "the takeover side was touched already: `rollback` goes back" if touched(state) else ""


def _rolling(state: RunState, plan: Plan, word: Decided) -> str:
    if word.what not in {group.name for group in plan.groups}:
        return f"there is no group {word.what!r}; groups are {', '.join(g.name for g in plan.groups)}"
    group = plan_group(plan, word.what)
    if any(state.began(f"commit/{m}") for m in group.machines):
        return f"{word.what} is home for good"
    if not any(state.began(f"claim/{m}") for m in group.machines):
        return "" if touched(state) else f"{word.what} was not touched: `cancel` ends the run"
    if gate_opened(state, group) is not None and not word.discard:
        return f"users may have written at home since the gate of {word.what} opened: --discard gives that up"
    return ""


def _committing(state: RunState, plan: Plan, word: Decided) -> str:
    name = word.what.partition("/")[2]
    if name not in {group.name for group in plan.groups}:
        return f"there is no group {name!r}"
    if name in state.back:
        return f"{name} goes back"
    group = plan_group(plan, name)
    if gate_opened(state, group) is None:
        return f"the gate of {name} is not open yet"
    return ""


def _splitting(state: RunState, plan: Plan, word: Decided) -> str:
    group = next((g for g in ordered(plan) if set(word.machines) <= set(g.machines)), None)
    if group is None or not word.machines:
        return "name machines of one group that are to stay at the takeover site"
    if set(word.machines) | (state.stay.keys() & set(group.machines)) >= set(group.machines):
        return f"nothing of {group.name} would come home: `rollback` is the word for that"
    if group.name in state.back:
        return f"{group.name} goes back"
    if not any(state.began(f"claim/{m}") for m in group.machines):
        return f"{group.name} was not touched yet: change the plan"
    if gate_opened(state, group) is not None:
        return f"the gate of {group.name} was opened"
    return ""


def _overriding(state: RunState, plan: Plan, word: Decided) -> str:
    unknown = [m for m in word.machines if m not in plan.machines]
    if unknown or not word.machines:
        return f"name machines of the plan: {', '.join(plan.machines)}"
    if not word.reason.strip():
        return "say why you know that it is off, with --reason"
    if word.what == "home":
        forth = [m for m in word.machines if plan.group_of(m).name not in state.back and m not in state.stay]
        return f"{', '.join(forth)} does not go back: `rollback` or `split` comes first" if forth else ""
    return ""


def _looking(state: RunState, plan: Plan, word: Decided) -> str:
    if word.what not in plan.machines:
        return f"there is no machine {word.what!r}; machines are {', '.join(plan.machines)}"
    if not any(check.hook == "operator" for check in plan.machines[word.what].checks):
        return f"no check of {word.what} asks a person (hook operator)"
    if looked_since(state, plan, word.what) is None:
        return f"nobody asks about {word.what} now"
    return ""


_REFUSALS = {
    "answer": _looking,
    "approve": _answering,
    "reject": _answering,
    "cancel": _cancelling,
    "rollback": _rolling,
    "commit": _committing,
    "split": _splitting,
    "override": _overriding,
}
