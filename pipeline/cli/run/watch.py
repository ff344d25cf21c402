"""`failback run watch`: a run as it goes on, wherever it is conducted."""

from __future__ import annotations

import sys
import textwrap
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.run.conduct import RunArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.cli.output import Output
    from pipeline.runs.entries import Entry

POLL_SECONDS = 2.0


@command
def watch(
    invocation: Invocation,
    run: RunArgument,
    once: Annotated[bool, typer.Option("--once", help="Show it as it is now, and end.")] = False,
) -> Ending:
    """Show groups, waves and machines of a run, what is under way and how far, what is waited for, and what going back
    would cost; until the run is over. On a terminal in place, else a line for each thing that happens.

    Only looks: Ctrl-C ends the looking, never the run.
    """
    from pipeline.cli.run.conducting import code_of
    from pipeline.runs.begin import find_run
    from pipeline.runs.decide import Over
    from pipeline.runs.fold import fold
    from pipeline.runs.journal import Journal
    from pipeline.runs.report import document, lines
    from pipeline.runs.status import looked_at, status_lines, status_of

    repository = invocation.open_repository()
    state, stored = find_run(repository, run)
    journal = Journal(repository, state.run)
    invocation.how_to_go_on = lambda: f"the run goes on; `failback run watch {state.run}` looks again"

    def picture() -> list[str]:
        looked = looked_at(repository, state.run) if state.met is None else None
        return [*lines(state, stored.plan, None), *status_lines(status_of(repository, state), looked)]

    with _view(invocation.output) as show:
        while True:
            new = journal.read()
            state = fold(state.run, journal.entries)
            show(picture(), new)
            if state.outcome is not None or once:
                break
            time.sleep(POLL_SECONDS)
    code = code_of(Over(state.outcome)) if state.outcome is not None else 0
    return Ending(code, document(state, stored.plan, None))


def folded(lines: list[str], width: int) -> list[str]:
    """No line is longer than that: what a person is to type must not be cut off. What follows stands further in."""
    found = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()))
        parts = textwrap.wrap(
            line, width, subsequent_indent=f"{indent}    ", break_on_hyphens=False, drop_whitespace=True,
            replace_whitespace=False,
        )  # fmt: skip
        found += parts or [""]
    return found


@contextmanager
def _view(output: Output) -> Iterator[Callable[[list[str], list[Entry]], None]]:
    from pipeline.cli.output import plain
    from pipeline.runs.report import entry_line

    if not (output.for_people and sys.stdout.isatty()):

        def line_by_line(picture: list[str], new: list[Entry]) -> None:
            if output.for_people:
                output.say(*map(entry_line, new))
            for entry in new:
                output.event("entry", number=entry.number, entry=entry.body.kind, time=entry.time.isoformat())
            del picture

        yield line_by_line
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False, markup=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:

        def in_place(picture: list[str], new: list[Entry]) -> None:
            recent = [entry_line(entry) for entry in new][-5:]
            shown = [*folded(picture, console.width), *([""] if recent else []), *recent]
            text = Text("\n".join(map(plain, shown)), no_wrap=True)
            text.overflow = "ellipsis"
            live.update(text, refresh=True)

        yield in_place
