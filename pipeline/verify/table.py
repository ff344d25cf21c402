"""Results as a table for people (`Output.table` prints it)."""

from __future__ import annotations

from pipeline.verify.results import CheckResult, Results

COLUMNS = ("check", "result", "seen", "attempts", "time")
NUMBERS = (3, 4)
"""Columns that are set to the right."""


def rows(results: Results) -> list[tuple[str, ...]]:
    """One row for each check."""
    return [
        (check.name, _result(check), _seen(check), str(check.attempts), f"{check.seconds:.1f} s")
        for check in results.checks
    ]


def _result(check: CheckResult) -> str:
    advisory = check.level == "advisory" and check.status not in ("passed", "not applicable")
    return f"{check.status} (advisory)" if advisory else check.status


def _seen(check: CheckResult) -> str:
    # A table cell is one line; control characters of a console must not reach the terminal.
    line = " ".join("".join(c if c.isprintable() else " " for c in check.seen).split())
    files = ", ".join(str(path) for path in check.artifacts)
    return f"{line} [{files}]" if files else line
