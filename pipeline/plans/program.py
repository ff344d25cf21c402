"""Programs of the user that a plan names: how they are run, and what is shown of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from manifests.machine import Model
from pipeline.verify.hooks.text import decoded, plain
from pipeline.verify.process import environment, run, without

SEEN = 400
"""Characters of what it says that are kept."""


class ProgramSettings(Model):
    """What all programs of a plan have in common."""

    environment: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], ...] = ()
    """Names of variables that it gets besides PATH, HOME and the like; their values are taken out of what it says."""


@dataclass(frozen=True, slots=True)
class Done:
    """`code` as of a shell. None: it was killed when its time was over, or could not be started."""

    code: int | None
    seen: str
    """For people: the program, how it ended, and the last line that it printed."""
    line: str
    """That last line alone: of standard output, or of standard error when there is none."""


def run_program(
    argv: Sequence[str], settings: ProgramSettings, *, seconds: float, variables: Mapping[str, str]
) -> Done:
    """Raises UsageError when a variable that it is to get is not set."""
    secrets = [os.environ[name] for name in settings.environment if name in os.environ]
    environ = {**environment(settings.environment), **variables}
    try:
        ran = run(argv, seconds=seconds, cancelled=threading.Event(), environ=environ)
    except (OSError, ValueError) as error:
        return Done(None, f"{argv[0]} cannot be run: {error}", "")
    line = without(_last_line(ran.output) or _last_line(ran.error), secrets)
    if ran.exit_code is None:
        ended = f"{argv[0]} did not end within {seconds:g} s and was killed"
    else:
        ended = f"{argv[0]} ended with {ran.exit_code}"
    return Done(ran.exit_code, f"{ended}: {line}" if line else ended, line)


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in plain(decoded(output)).splitlines() if line.strip()]
    return lines[-1][-SEEN:] if lines else ""
