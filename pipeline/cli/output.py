"""What a command prints: for people, for machines (`--json`), or nothing but errors (`--quiet`)."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any


def plain(text: str) -> str:
    """The text without anything that a terminal would obey: names and consoles of guests are other people's words."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and line feed, and what turns the direction of writing round."""


class Output:
    """Results go to standard output; progress, warnings and errors for people to standard error."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False, redact: Callable[[str], str] = str) -> None:
        self.quiet = quiet
        self.as_json = as_json
        self.redact = redact
        self.before: Callable[[], None] = lambda: None
        """Called before a line is printed: a progress bar clears itself."""
        self._lock = threading.Lock()

    @property
    def for_people(self) -> bool:
        return not self.quiet and not self.as_json

    def say(self, *lines: str) -> None:
        """Lines of a result, for people."""
        if self.for_people:
            self._print(*map(plain, lines))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
        """Rows below column names; columns numbered in `right` hold numbers."""
        if not self.for_people:
            return
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number in right else "left", no_wrap=number == 0)
        for row in rows:
            table.add_row(*map(plain, row))
        # Into a file or a pipe nothing is cut: whoever reads it there has no window.
        width = None if sys.stdout.isatty() else 400
        console = Console(file=sys.stdout, width=width, highlight=False, markup=False)
        with console.capture() as captured:
            console.print(table)
        self._print(*(line.rstrip() for line in captured.get().splitlines()))

    def note(self, text: str) -> None:
        """Something worth knowing."""
        self.say(text)
        self.event("note", text=text)

    def warn(self, text: str) -> None:
        """Something that may need attention; not an error."""
        self.event("warning", text=text)
        if self.for_people:
            self._print(f"warning: {plain(text)}", error=True)

    def error(self, message: str, remedy: str) -> None:
        """The two lines with which a failed command ends."""
        self._print(f"failback: {plain(message)}", *([f"  {plain(remedy)}"] if remedy else []), error=True)

    def event(self, kind: str, **values: Any) -> None:
        """One JSON line, in JSON mode (a quiet one prints results only)."""
        if self.as_json and (kind == "result" or not self.quiet):
            self._print(json.dumps({"type": kind, **values}, ensure_ascii=False, default=str))

    def _print(self, *lines: str, error: bool = False) -> None:
        stream = sys.stderr if error else sys.stdout
        text = self.redact("".join(f"{line}\n" for line in lines))
        with self._lock:
            self.before()
            # A name that this terminal's encoding does not know must not stop a command.
            encoding = stream.encoding or "utf-8"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            stream.flush()
