"""Notes on a machine of somebody else: marks that only change if nothing else of the machine changed meanwhile."""

from __future__ import annotations

from typing import Any

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.vm import Vm, look, options_of, reconfigure
from pipeline.errors import TargetMismatch
from pipeline.target import Control


class Marks:
    """A `pipeline.target.Journal`. A note is refused (TargetBusy) when the machine was changed since `get`: whoever
    compared an epoch with it compared the one that is there."""

    def __init__(self, connection: Connection, machine: Any, control: Control) -> None:
        self._connection = connection
        self._machine = machine
        self._control = control
        self._seen: Vm | None = None

    def get(self, key: str) -> str:
        self._seen = self._look()
        return self._seen.marks.get(key, "")

    def note(self, key: str, value: str) -> None:
        seen = self._seen or self._look()
        spec = vim.vm.ConfigSpec(changeVersion=seen.change, extraConfig=options_of({key: value}))

        def done(vm: Vm) -> bool:
            return vm.marks.get(key, "") == value

        about = f"cannot mark the machine {seen.name}"
        reconfigure(self._connection, self._machine, self._control, spec, about, done)
        self._seen = None

    def _look(self) -> Vm:
        seen = look(self._connection, self._machine)
        if seen is None:
            raise TargetMismatch(f"the machine {self._machine._moId} is gone", remedy="look who removed it")
        return seen
