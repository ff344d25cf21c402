"""What a command is expected to do: its exit code and its output. Shared by the hooks that run one."""

from __future__ import annotations

from pydantic import Field

from manifests.machine import Model
from pipeline.verify.hook import Outcome, failed, passed
from pipeline.verify.hooks.text import Regex, decoded, last_lines, quoted, search


class Expected(Model):
    """Settings: the exit code, and the output if it matters (white space around it does not)."""

    exit_code: int = Field(default=0, ge=0, le=255)
    output: str | None = None
    """The whole of it."""
    regex: Regex | None = None
    """Found somewhere in it."""


def judged(expected: Expected, exit_code: int, output: bytes, error: bytes) -> Outcome:
    """Passed when all is as expected; always says what was seen."""
    text = decoded(output).strip()
    said = last_lines(decoded(error), 2)
    seen = f"exit code {exit_code}, output {quoted(text)}" + (f", error {quoted(said)}" if said else "")
    if exit_code != expected.exit_code:
        return failed(f"{seen} (expected exit code {expected.exit_code})")
    if expected.output is not None and text != expected.output.strip():
        return failed(f"{seen} (expected {quoted(expected.output.strip())})")
    if expected.regex is not None and search(expected.regex, text) is None:
        return failed(f"{seen} (expected something like {expected.regex!r})")
    return passed(seen)
