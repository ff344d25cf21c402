"""VMware with a worker of our own making: a machine that the stand-in runs in QEMU, and a bucket that it reaches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyVmomi import vim
from servers import Server
from simulators.vsphere_client import log_in
from simulators.vsphere_server import VSphere

# The harness of the contract suite beside us.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract.vmware import VmwareHarness

from importers.vmware.target import VmwareImporter
from pipeline.store.address import open_store
from pipeline.store.base import Store
from pipeline.target import Context, Importer

PREFIX = "failback-worker-"
"""Of the name of a worker that failback makes."""


class OwnWorkerHarness(VmwareHarness):
    def __init__(self, root: Path, server: VSphere, bucket: Server, image: Path, *, address: str = "") -> None:
        self.address = address or bucket.address()
        self._image = image
        super().__init__(root, server)

    def store(self) -> Store:
        return open_store(self.address, create=True)

    def make(self, context: Context) -> Importer:
        return VmwareImporter(replace(context, address=self.address, pairings=self.root / "state"))

    def mapping(self) -> dict[str, object]:
        said: Any = super().mapping()
        said["options"]["vmware"]["worker"] = {
            "network": self.network,
            # QEMU's user network shows this host as 10.0.2.2.
            "repository": self.address.replace("127.0.0.1", "10.0.2.2"),
            "image": str(self._image),
            "memory": "1GiB",
            "idle": 1,
        }
        return said

    def workers(self) -> dict[str, Any]:
        """By name, as the stand-in reports them."""
        machines: dict[str, Any] = self.server.report()["machines"]
        return {name: machine for name, machine in machines.items() if name.startswith(PREFIX)}

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
        return [thing for thing in super().things() if PREFIX not in thing]


def until(true: Callable[[], object], seconds: float = 60.0, every: float = 0.05) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it does not come to be"
        time.sleep(every)
