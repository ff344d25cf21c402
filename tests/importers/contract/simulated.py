"""The platform in memory under the contract, with many combinations of abilities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from simulators.importer import SimulatedImporter
from simulators.platform import Platform

from contract.harness import Harness
from pipeline.target import Abilities, Context, Importer, Place, Stage


class Killed(BaseException):
    """Nothing may catch it."""


class SimulatedHarness(Harness):
    target = "simulated"

    def __init__(self, root: Path, abilities: Abilities) -> None:
        self.platform = Platform()
        self._abilities = abilities
        super().__init__(root)

    def make(self, context: Context) -> Importer:
        return SimulatedImporter(context, self.platform, self._abilities)

    def things(self) -> list[str]:
        disks = [f"{d.tags.get('role')} {d.tags.get('number')}" for d in self.platform.disks.values()]
        return sorted(
            [*disks, *(f"machine {m.name} {'on' if m.on else 'off'}" for m in self.platform.machines.values())]
        )

    def content(self, stage: Stage, number: int) -> bytes:
        return bytes(self.platform.disks[stage.ref[str(number)]].data)

    def scribble(self, stage: Stage, number: int) -> None:
        self.platform.scribble(stage.ref[str(number)], 100, b"somebody was here")

    def ran(self, importer: Importer, place: Place) -> None:
        """The guest on this platform writes when it starts."""
        [machine] = self.platform.find_machines(marker=str(place.marker))
        self.platform.power_on(machine.id)
        self.platform.power_off(machine.id)

    def machine_content(self, place: Place, number: int) -> bytes:
        [machine] = self.platform.find_machines(marker=str(place.marker))
        return bytes(self.platform.disks[machine.disks[number]].data)

    def existing(self) -> str:
        disk = self.platform.create_disk(1 << 20, {"role": "foreign", "number": "0"})
        self.platform.create_machine("survivor", {}, [disk], ["lan"])
        return "survivor"

    def killed(self, nth: int, action: Callable[[], object]) -> bool:
        count, dead = 0, False

        def fault(_name: str, phase: Literal["before", "after"]) -> None:
            nonlocal count, dead
            count += phase == "before"
            dead = dead or (count >= abs(nth) and (phase == "after") == (nth < 0))
            if dead:  # the dead clean nothing up
                raise Killed

        self.platform.fault = fault
        try:
            action()
        except Killed:
            return True
        finally:
            self.platform.fault = lambda _name, _phase: None
        return False
