"""`command`: the user's programs open and close, and say which it is.

`observe` prints one word as its last line: open, closed or unknown. Without it nobody can say.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.errors import TargetError
from pipeline.plans.program import Done, ProgramSettings, run_program
from pipeline.plans.traffic import Gate, State, Way
from pipeline.verify.duration import Seconds

Argv = Annotated[tuple[str, ...], Field(min_length=1)]


class CommandSettings(ProgramSettings):
    """Programs with their arguments; no shell. Each may be called again, and then finds that all is done."""

    open: Argv
    close: Argv
    observe: tuple[str, ...] = ()
    timeout: Annotated[Seconds, Field(gt=0)] = 120.0
    """Of each."""


class CommandGate(Gate[CommandSettings]):
    Settings = CommandSettings

    def open(self, way: Way) -> str:
        return self._must(self.settings.open, way)

    def close(self, way: Way) -> str:
        return self._must(self.settings.close, way)

    def observe(self, way: Way) -> State:
        if not self.settings.observe:
            return "unknown"
        done = self._run(self.settings.observe, way)
        if done.code == 0 and done.line in ("open", "closed"):
            return "open" if done.line == "open" else "closed"
        return "unknown"

    def _must(self, argv: tuple[str, ...], way: Way) -> str:
        done = self._run(argv, way)
        if done.code != 0:
            raise TargetError(
                f"traffic of group {way.group}: {done.seen}",
                remedy="mend it, or do by hand what it was to do; it is called again",
            )
        return done.seen

    def _run(self, argv: tuple[str, ...], way: Way) -> Done:
        return run_program(argv, self.settings, seconds=self.settings.timeout, variables=way.environment)
