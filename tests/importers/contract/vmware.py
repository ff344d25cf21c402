"""VMware under the contract, with the stand-in as vCenter."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from agent.conftest import running_agent
from pyVmomi import vim
from simulators.vsphere_client import log_in
from simulators.vsphere_server import VSphere
from simulators.vsphere_worker import NAME, worker_of
from transfer.killing import in_child, kill_at
from transfer.support import MIB, noise, poke

from contract.harness import Harness
from importers.vmware import bulk, isolated, layer, patch, staging, target, worker_machine
from importers.vmware.connection import Connection
from importers.vmware.target import VmwareImporter
from pipeline.agent.controller import Agents
from pipeline.home.control import Controller
from pipeline.store.base import Store
from pipeline.store.open import open_store
from pipeline.target import Context, Importer, Place, Stage

DANGER: list[tuple[Any, str]] = [
    (Connection, "order"),
    (bulk, "send"),
    (bulk.Lease, "complete"),
    *((module, "destroy") for module in (bulk, staging, patch, target)),
    (layer, "remove"),
    (isolated, "_make"),
    (worker_machine, "send"),
    (Agents, "pair"),
    (Agents, "await_answer"),
]
"""What changes something there."""
WORKER = "failback-worker-"
"""What the name of a worker begins with that failback makes."""
PASSWORD = "FAILBACK_VMWARE_PASSWORD"


class VmwareHarness(Harness):
    target = "vmware"
    network = "VM Network"

    def __init__(self, root: Path, server: VSphere) -> None:
        self.server = server
        super().__init__(root)

    def make(self, context: Context) -> Importer:
        return VmwareImporter(context)

    def mapping(self) -> dict[str, object]:
        server = self.server
        password = self.root / "password"
        password.write_text(server.password)
        password.chmod(0o600)
        options = {
            "address": f"{server.address}:{server.port}",
            "user": server.user,
            "password": {"file": str(password)},
            "fingerprint": server.fingerprint,
            "datacenter": "DC0",
            "cluster": "DC0_C0",
            "datastore": "LocalDS_0",
            "hosts": {f"DC0_C0_H{number}": server.host for number in range(2)},
        }
        return {"options": {"vmware": options}}

    def things(self) -> list[str]:
        report = self.server.report()
        machines = [
            f"machine {name} {state['power']} {len(state['disks'])} disks {state['snapshots']}"
            for name, state in report["machines"].items()
        ]
        disks = [f"disk {path}" for path in report["disks"]]
        orphans = [f"orphan {path}" for path in report["orphans"]]
        leases = [f"lease {lease['state']}" for lease in report["leases"]]
        return sorted(re.sub(r"-[0-9a-f]{8}\b", "-*", thing) for thing in [*machines, *disks, *orphans, *leases])

    def _disks(self, identity: str) -> list[dict[str, Any]]:
        [machine] = [m for m in self.server.report()["machines"].values() if m["id"] == identity]
        return sorted(machine["disks"], key=lambda disk: (disk["controller"], disk["unit"]))

    def content(self, stage: Stage, number: int) -> bytes:
        disk = self._disks(stage.ref["machine"])[number]
        assert disk["format"] == "raw"
        return Path(disk["file"]).read_bytes()

    def scribble(self, stage: Stage, number: int) -> None:
        """Somebody else switches the machine on, and its guest writes."""
        identity = stage.ref["machine"]
        client = log_in(self.server)
        machine = next(vm for vm in client.all(vim.VirtualMachine) if vm._moId == identity)
        client.wait(machine.PowerOnVM_Task(None))
        poke(Path(self._disks(identity)[number]["file"]), 100, b"somebody was here")
        client.wait(machine.PowerOffVM_Task())

    def ran(self, importer: Importer, place: Place) -> None:
        disk = self._disks(place.ref["machine"])[0]
        command = ["qemu-io", "-f", disk["format"], "-c", "write -P 0x5a 4k 64k", disk["file"]]
        subprocess.run(command, check=True, capture_output=True)

    def machine_content(self, place: Place, number: int) -> bytes:
        disk, copy = self._disks(place.ref["machine"])[number], self.root / "copy"
        subprocess.run(["qemu-img", "convert", "-f", disk["format"], "-O", "raw", disk["file"], copy], check=True)
        return copy.read_bytes()

    def existing(self) -> str:
        return "nothing"

    def killed(self, nth: int, action: Callable[[], object]) -> bool:
        def doomed() -> None:
            kill_at(pytest.MonkeyPatch(), DANGER, nth)
            action()

        return in_child(doomed)


class VmwareWorkerHarness(VmwareHarness):
    """With a worker in the site, whose agent is a process of this host."""

    def __init__(self, root: Path, server: VSphere, stack: ExitStack) -> None:
        super().__init__(root, server)
        places = root / "state"
        self._agents = Agents(self.bench.repository, places, Controller())
        code = self._agents.pair("worker", str(root / "repository"))
        stack.enter_context(running_agent(root / "agent", code.encode()))
        stack.enter_context(worker_of(server, log_in(server)))
        self._agents.await_answer(code.agent, 60)
        self.agent = code.agent

    def store(self) -> Store:
        return open_store(str(self.root / "repository"), create=True)

    def make(self, context: Context) -> Importer:
        return VmwareImporter(replace(context, address=str(self.root / "repository"), pairings=self.root / "state"))

    def mapping(self) -> dict[str, object]:
        said: Any = super().mapping()
        if hasattr(self, "agent"):
            said["options"]["vmware"]["worker"] = {"machine": NAME, "agent": self.agent}
        return said

    def things(self) -> list[str]:
        return [thing for thing in super().things() if not thing.startswith(f"machine {NAME} ")]


class VmwareOwnWorkerHarness(VmwareHarness):
    """With a worker that failback makes there. Who plays or runs it is the caller's business; `address`: of the
    repository, empty: a directory; `worker`: more options."""

    def __init__(self, root: Path, server: VSphere, *, address: str = "", **worker: object) -> None:
        self.address = address or str(root / "repository")
        self._worker = {"network": self.network, "idle": 1, "login": "environment" if address else "", **worker}
        if "image" not in worker:
            self._worker["image"] = str(root / "worker.raw")
            (root / "worker.raw").write_bytes(noise(MIB, "worker"))
        super().__init__(root, server)

    def store(self) -> Store:
        return open_store(self.address, create=True)

    def make(self, context: Context) -> Importer:
        return VmwareImporter(replace(context, address=self.address, pairings=self.root / "state"))

    def on(self, host: str) -> Self:
        """The same as another host sees it, which has a folder of its own."""
        other = copy(self)
        other.root = self.root / host
        other.root.mkdir()
        other.state = other.root / "target"
        return other

    def mapping(self) -> dict[str, object]:
        said: Any = super().mapping()
        said["options"]["vmware"]["worker"] = self._worker
        return said

    def workers(self) -> dict[str, Any]:
        """By name, as the stand-in reports them."""
        machines: dict[str, Any] = self.server.report()["machines"]
        return {name: machine for name, machine in machines.items() if name.startswith(WORKER)}

    def worker(self) -> dict[str, Any]:
        """The only one."""
        [worker] = self.workers().values()
        return dict(worker)

    def settings(self, name: str) -> dict[str, str]:
        """Advanced ones of a machine, as whoever may look at it sees them."""
        client = log_in(self.server)
        found = client.get(client.named(vim.VirtualMachine, name), "config.extraConfig")
        return {option.key: option.value for option in found}

    def things(self) -> list[str]:
        """Without the worker and its own disk."""
        return [thing for thing in super().things() if WORKER not in thing]
