"""`failback run watch`: a run as it goes on, wherever it is conducted."""

from __future__ import annotations

import sys
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

Picture = tuple[list[str], list[str]]
"""The machines, and below them what the run waits for, what going back costs and who conducts."""
POLL_SECONDS = 2.0
ASK_SECONDS = 30.0
"""Between two looks at how much was written at home: the target may be far away."""
RECENT = 3
"""Entries of the journal that are shown below."""


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
    from pipeline.cli.run.conducting import code_of, written_here
    from pipeline.runs.begin import find_run
    from pipeline.runs.decide import Over
    from pipeline.runs.fold import fold
    from pipeline.runs.journal import Journal
    from pipeline.runs.report import document, machines, standing
    from pipeline.runs.status import looked_at, status_lines, status_of

    repository = invocation.open_repository()
    state, stored = find_run(repository, run)
    journal = Journal(repository, state.run)
    again = f"this only looked at the run, which is as it was; `failback run watch {state.run}` looks again"
    invocation.how_to_go_on = lambda: again
    written, asked = dict[str, int](), float("-inf")

    def picture() -> Picture:
        looked = looked_at(repository, state.run) if state.waits else None
        status = [] if state.outcome is not None else status_lines(state, status_of(repository, state), looked)
        return machines(state, stored.plan), [*standing(state, stored.plan, None, written), *status]

    with _view(invocation.output) as show:
        while True:
            new = journal.read()
            state = fold(state.run, journal.entries)
            if time.monotonic() - asked >= ASK_SECONDS:
                written, asked = written_here(invocation, state, stored), time.monotonic()
            show(picture(), new, journal.entries)
            if state.outcome is not None or once:
                break
            time.sleep(POLL_SECONDS)
    code = code_of(Over(state.outcome)) if state.outcome is not None else 0
    return Ending(code, document(state, stored.plan, None, written))


@contextmanager
def _view(output: Output) -> Iterator[Callable[[Picture, list[Entry], list[Entry]], None]]:
    """What shows (the picture, entries that are new, all entries)."""
    from pipeline.cli.output import plain
    from pipeline.runs.report import entry_line

    if not (output.for_people and sys.stdout.isatty()):

        def line_by_line(_picture: Picture, new: list[Entry], _entries: list[Entry]) -> None:
            if output.for_people:
                output.say(*map(entry_line, new))
            for entry in new:
                output.event("entry", number=entry.number, entry=entry.body.kind, time=entry.time.isoformat())

        yield line_by_line
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from pipeline.cli.fitted import screen, shortened

    console = Console(file=sys.stdout, highlight=False, markup=False)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:

        def in_place(picture: Picture, _new: list[Entry], entries: list[Entry]) -> None:
            width, height = console.size
            recent = [shortened(plain(entry_line(entry)), width) for entry in entries[-RECENT:]]
            top, bottom = ([plain(line) for line in part] for part in picture)
            rows = screen(top, [*bottom, "", *recent], width=width, height=height - 1)
            live.update(Text("\n".join(rows), no_wrap=True, overflow="crop"), refresh=True)

        yield in_place
