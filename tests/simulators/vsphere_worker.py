"""A worker machine of the stand-in whose system is this host: what is plugged into it appears here as a block device.

The machine is switched on at the stand-in, which locks its disks as a real one would. A thread does what a kernel does:
disks that are plugged in become loop devices with the disk's UUID as serial number, and go when they are unplugged.
What is written to a nonpersistent one goes nowhere: its loop device is on a copy.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from agent.conftest import AgentProcess, running_agent
from nbd.tools import run
from pyVmomi import vim

from simulators.numbered import numbered
from simulators.vsphere_client import Client, log_in
from simulators.vsphere_server import VSphere

NAME = "the-worker"
LOOK_SECONDS = 0.1


def make_worker(client: Client) -> Any:
    """A machine with a PVSCSI controller and no disk, switched on."""
    controller = vim.vm.device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing")
    spec = vim.vm.ConfigSpec(
        name=NAME,
        guestId="debian11_64Guest",
        numCPUs=1,
        memoryMB=1024,
        files=vim.vm.FileInfo(vmPathName="[LocalDS_0]"),
        deviceChange=[vim.vm.device.VirtualDeviceSpec(operation="add", device=controller)],
    )
    machine = client.create(spec)
    client.wait(machine.PowerOnVM_Task(None))
    return machine


class Kernel:
    """Plugs and unplugs."""

    def __init__(self, server: VSphere, name: str = NAME) -> None:
        self._server, self._name = server, name
        self._there: dict[str, ExitStack] = {}
        self._ended = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="kernel", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for stack in self._there.values():
            stack.close()
        if self.failure is not None and kind is None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._ended.wait(LOOK_SECONDS):
                self._look()
        except BaseException as error:  # noqa: BLE001 - told at the end
            self.failure = error

    def _look(self) -> None:
        self._plug(self._server.report()["machines"].get(self._name))

    def _plug(self, machine: dict[str, Any] | None) -> None:
        now = {disk["file"]: disk for disk in machine["disks"]} if machine else {}
        for file in self._there.keys() - now.keys():
            self._there.pop(file).close()
        for file in now.keys() - self._there.keys():
            try:
                self._there[file] = _plugged(now[file])
            except AssertionError:
                # Unplugged and deleted since the report.
                if Path(file).exists():
                    raise


def _plugged(disk: dict[str, Any]) -> ExitStack:
    file = Path(disk["file"])
    with ExitStack() as stack:
        if disk["mode"] == "independent_nonpersistent":
            copy = Path(stack.enter_context(TemporaryDirectory())) / "copy.raw"
            run("qemu-img", "convert", "-f", disk["format"], "-O", "raw", file, copy)
            file = copy
        stack.enter_context(numbered(file, disk["uuid"].replace("-", "")))
        return stack.pop_all()


@contextmanager
def worker_of(server: VSphere, client: Client) -> Iterator[Kernel]:
    make_worker(client)
    with Kernel(server) as kernel:
        yield kernel


class PlayedWorker(Kernel):
    """A worker that failback made, played by this host: its machine is the one whose name begins with `prefix`. When
    that is switched on, an agent that remembers nothing starts with the code in its settings; when it is switched off
    the agent is killed and no disk is there any more."""

    def __init__(self, server: VSphere, root: Path, prefix: str = "failback-worker-") -> None:
        super().__init__(server, prefix)
        self._client, self._root = log_in(server), root
        self._running = ExitStack()
        self.agent: AgentProcess | None = None
        self._code, self._booted = "", ""
        self.boots = 0
        self.blind = False
        """It does not see what is plugged in."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._running.close()

    def _look(self) -> None:
        machines = self._server.report()["machines"]
        name, machine = next(((n, m) for n, m in machines.items() if n.startswith(self._name)), ("", None))
        on = machine is not None and machine["power"] == "poweredOn"
        if self.agent is not None and (not on or machine["booted"] != self._booted):
            # Off; or off and on again since the last look.
            self.agent = None
            self._running.close()
            self._plug(None)
        if not self.blind or not on:
            self._plug(machine if on else None)
        if on and self.agent is None:
            self._booted = machine["booted"]
            self._boot(name)
        elif self.agent is not None and self.agent.process.poll() is not None:
            self._start()

    def _boot(self, name: str) -> None:
        settings = self._client.get(self._client.named(vim.VirtualMachine, name), "config.extraConfig")
        text = next((option.value for option in settings if option.key == "guestinfo.failback.worker"), "")
        lines = dict(line.split("=", 1) for line in base64.b64decode(text).decode().splitlines())
        if "code" in lines:
            self.boots += 1
            self._code = lines["code"]
            self._start()

    def _start(self) -> None:
        """As the worker's init does, also when it ends: it remembers what it was about since the boot."""
        self.agent = self._running.enter_context(running_agent(self._root / f"boot-{self.boots}", self._code))
