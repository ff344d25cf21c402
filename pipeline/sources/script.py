"""A program of the user's that does something to a machine where it runs now."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping, Sequence

from pipeline.errors import SourceError, SourceUnavailable
from pipeline.target import Control
from pipeline.verify.process import environment, run, without

TRY_AGAIN = 75
"""Exit code of a program that could not find out, or not reach what it needs (EX_TEMPFAIL of sysexits.h)."""
_SHOWN = 400
"""Characters of what it printed that an error repeats."""


def call(
    what: str,
    arguments: Sequence[str],
    *,
    seconds: float,
    control: Control | None,
    variables: Mapping[str, str],
    passed_on: Iterable[str] = (),
) -> str:
    """Run it; what it printed on its standard output, its last 64 KiB. `what`: for messages, as in "db: stop".
    `passed_on`: names of variables of ours that it gets, whose values are taken out of messages. No shell is involved,
    and it gets no other variables of ours than those that every program needs.

    Raises SourceError when its exit code is not 0, SourceUnavailable when it is TRY_AGAIN or when it was killed after
    its `seconds`: nobody knows then what it has done. Cancelled: it is killed; not with `control` None.
    """
    names = tuple(passed_on)
    try:
        ran = run(
            arguments,
            seconds=seconds,
            cancelled=_Cancelled(control) if control else threading.Event(),
            environ={**environment(names), **variables},
        )
    except OSError as error:
        raise SourceError(
            f"{what}: {arguments[0]} cannot be run: {error}", remedy="correct the command in the plan"
        ) from error
    secrets = [os.environ[name] for name in names]
    said = without(_said(ran.error) or _said(ran.output), secrets)
    if ran.exit_code is None:
        raise SourceUnavailable(
            f"{what}: {arguments[0]} was killed after {seconds:g} s" + (f"; it said: {said}" if said else ""),
            remedy="see what it waits for, or give it more `seconds`; how far it came is not known",
        )
    if ran.exit_code == TRY_AGAIN:
        raise SourceUnavailable(
            f"{what}: {arguments[0]} cannot tell now" + (f": {said}" if said else ""), remedy="try again later"
        )
    if ran.exit_code:
        raise SourceError(
            f"{what}: {arguments[0]} ended with exit code {ran.exit_code}" + (f": {said}" if said else ""),
            remedy="mend what it complains about, then go on",
        )
    return without(ran.output.decode("utf-8", "replace"), secrets)


class _Cancelled(threading.Event):
    """Asked between looks at the program; raises instead of being set."""

    def __init__(self, control: Control) -> None:
        super().__init__()
        self._control = control

    def is_set(self) -> bool:
        self._control.check()
        return False


def _said(output: bytes) -> str:
    """The last lines, on one."""
    return " ".join(output.decode("utf-8", "replace").split())[-_SHOWN:]
