"""The platform in memory under the contract, with many combinations of abilities."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from importers.contract.harness import Harness
from pipeline.target import Abilities, Context, Importer, Place, Stage
from simulators.importer import SimulatedImporter
from simulators.platform import Platform

CONSOLE: Any = frozenset({"text", "picture"})
KINDS = {
    "like qemu": Abilities(layer="overlay", console=CONSOLE),
    "like a hypervisor's bulk path": Abilities(patch="none", layer="snapshot", proof="stream"),
    "like a hypervisor's worker": Abilities(layer="snapshot", adopts=True, guest=frozenset({"heartbeat", "command"})),
    "like a gateway": Abilities(layer="clone", size_step=1 << 20, network_at="boot"),
    "like a gateway that refreshes below machines": Abilities(layer="clone", stage_while_layered=True),
    "like a block API": Abilities(patch="child", layer="clone", create_off=False, granule=512 << 10),
    "like a transition host": Abilities(layer="none", power="guest", writer="agent"),
    "layers without patches": Abilities(patch="none", layer="clone", network_at="boot", create_off=False),
    "children under snapshots": Abilities(patch="child", layer="snapshot", instant=True),
    "switched by a person": Abilities(layer="snapshot", power="none"),
    "neither layers nor patches": Abilities(patch="none", layer="none", create_off=False),
}


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
        return sorted([*disks, *(f"machine {m.name} {'on' if m.on else 'off'}" for m in self.platform.machines.values())])

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
        count = 0

        def fault(_name: str, phase: Literal["before", "after"]) -> None:
            nonlocal count
            count += phase == "before"
            if count >= abs(nth) and (phase == "after") == (nth < 0):
                raise Killed

        self.platform.fault = fault
        try:
            action()
        except Killed:
            return True
        finally:
            self.platform.fault = lambda _name, _phase: None
        return False
