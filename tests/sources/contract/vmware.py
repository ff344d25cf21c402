"""VMware under the contract, with the stand-in as vCenter: a machine whose power is all that counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim
from simulators.vsphere_client import log_in, machine_spec
from simulators.vsphere_server import VSphere
from transfer.killing import in_child, kill_at

from importers.vmware import unattended
from importers.vmware.connection import Connection
from importers.vmware.source import VmwareSource
from pipeline.source import Source, SourceContext
from sources.contract.harness import MACHINE, Harness

DANGER = [(Connection, "order"), (unattended, "set_priority")]


class VmwareHarness(Harness):
    def __init__(self, root: Path, server: VSphere) -> None:
        super().__init__(root)
        self.server = server
        self.client = log_in(server)
        cluster = self.client.all(vim.ClusterComputeResource)[0]
        pool = self.client.get(cluster, "resourcePool")
        self.machine = self.client.wait(self.client.folder.CreateVM_Task(machine_spec(MACHINE), pool, None))
        self.client.wait(self.machine.PowerOnVM_Task(None))
        password = root / "password"
        password.write_text(server.password)
        self.options: dict[str, Any] = {
            "address": f"{server.address}:{server.port}",
            "user": server.user,
            "password": {"file": str(password)},
            "fingerprint": server.fingerprint,
        }

    def make(self, context: SourceContext) -> Source:
        return VmwareSource(SourceContext(context.state, context.control, context.journal, self.options, context.run))

    def acknowledged(self) -> int:
        return 0

    def works(self) -> bool:
        return str(self.server.machine(MACHINE)["power"]) == "poweredOn"

    def silent(self) -> bool:
        return not self.works()

    def things(self) -> list[str]:
        cluster = self.client.all(vim.ClusterComputeResource)[0]
        own = self.client.get(cluster, "configurationEx").dasVmConfig or []
        priorities = [f"restart priority {entry.dasSettings.restartPriority}" for entry in own]
        return [str(self.server.machine(MACHINE)["power"]), *priorities]

    def pull(self) -> None:
        self.client.wait(self.machine.PowerOffVM_Task())

    def cut(self) -> None:
        self.options["address"] = "127.0.0.1:1"

    def killed(self, nth: int, action: Callable[[], object]) -> bool:
        def doomed() -> None:
            kill_at(pytest.MonkeyPatch(), DANGER, nth)
            action()

        return in_child(doomed)
