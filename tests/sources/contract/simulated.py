"""The estate in memory under the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from simulators.source import Estate, Phase, SimulatedSource

from pipeline.source import Source, SourceAbilities, SourceContext
from sources.contract.harness import MACHINE, Harness


class Killed(BaseException):
    """Nothing may catch it."""


class SimulatedHarness(Harness):
    def __init__(self, root: Path, **abilities: Any) -> None:
        super().__init__(root)
        self.estate = Estate()
        self.estate.add(MACHINE, 1 << 20, 1 << 16)
        self._abilities = SourceAbilities(**{"changes": True, "quiesce": "services", **abilities})

    def make(self, context: SourceContext) -> Source:
        return SimulatedSource(context, self.estate, self._abilities)

    def acknowledged(self) -> int:
        self.estate.request(MACHINE)
        return self.estate.machines[MACHINE].acknowledged

    def works(self) -> bool:
        return self.estate.request(MACHINE) is not None

    def silent(self) -> bool:
        return not self.works()

    def things(self) -> list[str]:
        found = self.estate.machines[MACHINE]
        return [f"{found.power} {found.services} {found.locked} {found.starts} {found.retired} {found.touched}"]

    def pull(self) -> None:
        self.estate.turn(MACHINE, "off")

    def cut(self) -> None:
        self.estate.silent = True

    def killed(self, nth: int, action: Callable[[], object]) -> bool:
        number = 0

        def fault(_name: str, phase: Phase) -> None:
            nonlocal number
            number += phase == "before"
            if (phase == "before" and number == nth) or (phase == "after" and number == -nth):
                raise Killed

        self.estate.fault = fault
        try:
            action()
        except Killed:
            return True
        finally:
            self.estate.fault = lambda _name, _phase: None
        return False
