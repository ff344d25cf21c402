"""Text that hooks expect, and text that they show."""

from __future__ import annotations

import re
from typing import Annotated

import regex
from pydantic import AfterValidator

from pipeline.errors import TargetError

SEARCH_SECONDS = 5.0
"""Of one search. What a guest says is its own choice, and many expressions take the square of its length, or more."""
SHOWN = 200
"""Characters of an answer that a result repeats."""
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\^_=>78()c].?")
"""ECMA-48, 5.4 (control sequences) and 5.6 (control strings), and what terminals of DEC's know besides."""


def _regex(value: str) -> str:
    try:
        regex.compile(value)
    except regex.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from None
    return value


Regex = Annotated[str, AfterValidator(_regex)]
"""A regular expression as Python's `re` has them, searched for (not: matched as a whole), `^` and `$` at every line."""


def search(pattern: str, text: str) -> regex.Match[str] | None:
    """Raises TargetError when it takes too long. Other threads go on meanwhile: `re` would hold them all up."""
    try:
        return regex.search(pattern, text, regex.MULTILINE, timeout=SEARCH_SECONDS, concurrent=True)
    except TimeoutError:
        raise TargetError(
            f"looking for {pattern!r} in {len(text)} characters was given up after {SEARCH_SECONDS:.0f} s",
            remedy="write an expression that begins with a fixed text",
        ) from None


def decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def plain(text: str) -> str:
    """Console text as a person sees it: no escape sequences, one kind of line end, no control characters."""
    text = _ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in text if c >= " " or c in "\n\t")


def quoted(text: str, length: int = SHOWN) -> str:
    """`'the first characters...'` on one line."""
    return repr(text if len(text) <= length else f"{text[:length]}...")


def last_lines(text: str, count: int = 5) -> str:
    """The last lines with something on them, joined by ` | `."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(line[-SHOWN:] for line in lines[-count:])
