"""The short form of a check, for the command line: `HOOK` or `HOOK:REST`.

    --hook tcp:22                    --hook http:80/health=200       --hook console:'login:'
    --hook picture                   --hook ping                     --hook heartbeat:30s
    --hook ssh:admin@22:'systemctl is-active nginx'=active
    --hook guest:'systemctl is-active nginx'=active
    --hook exec:5432@scripts/hooks/postgresql.py

What REST means is the hook's own affair (`Hook.short`). The check is required, and named like its short form, a long
one by its beginning.
"""

from __future__ import annotations

import hashlib

from pydantic import ValidationError

from pipeline.errors import UsageError
from pipeline.verify.checks import NAME_LENGTH, Check, hook_of
from pipeline.verify.registry import hook_class


def parse_hook(text: str) -> Check:
    """The check that `text` stands for, settings validated. Raises UsageError that shows the right form."""
    name, _, rest = text.partition(":")
    try:
        kind = hook_class(name.strip())
    except UsageError as error:
        raise UsageError(f"--hook {text!r}: {error.message}", remedy=error.remedy) from None
    form = f"the form is {kind.form}"
    try:
        check = Check(name=_name(text), hook=name.strip(), settings=kind.short(rest))
        hook_of(check)
    except ValidationError as error:
        raise UsageError(f"--hook {text!r}: {error.errors()[0]['msg']}", remedy=form) from None
    except ValueError as error:
        raise UsageError(f"--hook {text!r}: {error}", remedy=form) from None
    except UsageError as error:
        message = error.message.removeprefix(f"check {_name(text)!r}: ")
        raise UsageError(f"--hook {text!r}: {message}", remedy=form) from None
    return check


def _name(text: str) -> str:
    """One that no other text has."""
    if len(text) <= NAME_LENGTH:
        return text
    mark = f"... ({hashlib.sha256(text.encode(errors='surrogateescape')).hexdigest()[:8]})"
    return text[: NAME_LENGTH - len(mark)] + mark


def split_expected(text: str) -> tuple[str, str | None]:
    """`COMMAND[=EXPECTED]`: what follows the last `=` is expected, unless COMMAND stands in quotes, which end it.

    `'a=b c'=ok` is the command `a=b c`; a `=` at the end expects empty output. Raises ValueError.
    """
    if text[:1] in ("'", '"'):
        end = text.find(text[0], 1)
        if end < 0:
            raise ValueError("the quoted command has no end")
        command, rest = text[1:end], text[end + 1 :]
        if rest and not rest.startswith("="):
            raise ValueError(f"after the quoted command comes {rest!r} instead of =EXPECTED")
        return command, rest[1:] if rest else None
    command, sign, expected = text.rpartition("=")
    return (command, expected) if sign else (text, None)


def port_number(text: str) -> int:
    """Raises ValueError."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is not a port (1 to 65535)")
    return int(text)
