"""vSphere: the tests' stand-in for vCenter, MinIO, and a worker of the site whose agent is a process beside them."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.bench import tool
from scripts.bench.ground import Ground
from scripts.bench.measure import Command, Figures, run
from scripts.bench.server import BUCKET, CREDENTIALS, DIRECT, Minio

IDLE = 10
"""Seconds between an agent's looks for orders while nothing goes on: its default."""
NETWORK = "lan"
_ANSWER_SECONDS = 60.0


@dataclass
class Home:
    """A repository on MinIO, and a site that machines come home to. Made by `home`."""

    ground: Ground
    minio: Minio
    server: Any
    """simulators.vsphere_server.VSphere"""
    client: Any
    """simulators.vsphere_client.Client"""
    agent: str = ""
    mappings: dict[str, Path] = field(default_factory=dict)
    """With and without a worker."""

    def failback(self, *arguments: str) -> tuple[Figures, dict[str, Any]]:
        """Run a command; its figures and its result. Raises CommandFailed."""
        answer = self.ground.scratch / "answer.json"
        command = Command([*tool.failback(), *arguments, "--json", "--quiet"], self.environment("controller"))
        figures = run(command, self.ground.log, answer=answer)
        return figures, json.loads(answer.read_text().splitlines()[-1])

    def environment(self, whose: str) -> dict[str, str]:
        """Of a host of its own."""
        return {
            **CREDENTIALS,
            **DIRECT,
            "FAILBACK_REPOSITORY": f"s3://{BUCKET}/disks?endpoint={self.minio.endpoint}",
            "FAILBACK_STATE_DIR": str(self.ground.scratch / whose),
            "FAILBACK_KEY_FILE": str(self.ground.scratch / "key"),
            "FAILBACK_VMWARE_PASSWORD": self.server.password,
        }

    def come(self, machine: str, *, worker: bool) -> tuple[Figures, dict[str, Any]]:
        """Import the latest point and switch the machine on."""
        mapping = str(self.mappings["worker" if worker else "bulk"])
        return self.failback("import", machine, "--to", "vmware", "--map", mapping, "--boot")

    def go(self, machine: str) -> None:
        """Switch it off; what it wrote goes."""
        self.failback("stop", machine, *self._where(), "--seconds", "0", "--drop")

    def vanish(self, machine: str) -> None:
        """It goes with its disks."""
        self.failback("clean", machine, *self._where(), "--all")

    def _where(self) -> tuple[str, ...]:
        return "--to", "vmware", "--map", str(self.mappings["worker"])

    def committed(self, machine: str) -> float:
        """When the machine's newest point came into the bucket (time.time)."""
        folder = self.minio.objects / "disks" / "manifests" / machine
        return max(path.stat().st_mtime for path in folder.glob("*/xl.meta"))

    def started(self, machine: str) -> float:
        """When vSphere says that the machine was switched on last (time.time)."""
        from pyVmomi import vim

        found = self.client.named(vim.VirtualMachine, machine)
        by = vim.event.EventFilterSpec.ByEntity(entity=found, recursion="self")
        spec = vim.event.EventFilterSpec(entity=by, eventTypeId=["VmPoweredOnEvent"])
        events = self.client.content.eventManager.QueryEvents(spec)
        on = [event.createdTime for event in events if isinstance(event, vim.event.VmPoweredOnEvent)]
        return float(max(on).timestamp())

    def disks(self, machine: str) -> list[Path]:
        """The files with its blocks, while nothing is built on them."""
        return [Path(disk["file"]) for disk in self.server.report()["machines"][machine]["disks"]]

    @contextmanager
    def agent_running(self) -> Iterator[None]:
        """The worker's agent. It knows who it is after the first time."""
        with _agent(self.environment("agent")):
            yield

    def pair(self) -> None:
        """Make the agent this host's, and tell the mapping of it."""
        code, log = self.ground.scratch / "code", self.ground.log
        command = [*tool.failback(), "agent", "pair", "worker", "--code-file", str(code), "--json", "--quiet"]
        environment = {**os.environ, **self.environment("controller")}
        with open(log, "ab") as output:
            pairing = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=output)
        end = time.monotonic() + _ANSWER_SECONDS
        while not code.exists() and pairing.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        with _agent(self.environment("agent"), code.read_text()):
            answer, _ = pairing.communicate(timeout=_ANSWER_SECONDS)
        self.agent = str(json.loads(answer.splitlines()[-1])["agent"])

    def write_mappings(self, worker_machine: str) -> None:
        """One with the worker, one without."""
        server = self.server
        options: dict[str, Any] = {
            "address": f"{server.address}:{server.port}",
            "user": server.user,
            "fingerprint": server.fingerprint,
            "datacenter": "DC0",
            "cluster": "DC0_C0",
            "datastore": "LocalDS_0",
            "hosts": {f"DC0_C0_H{number}": server.host for number in range(2)},
        }
        for name in ("bulk", "worker"):
            if name == "worker":
                options["worker"] = {"machine": worker_machine, "agent": self.agent}
            path = self.ground.scratch / f"{name}.yaml"
            path.write_text(json.dumps({"networks": {NETWORK: "VM Network"}, "options": {"vmware": options}}))
            self.mappings[name] = path


@contextmanager
def home(ground: Ground) -> Iterator[Home]:
    """Everything is gone at the end, loop devices and processes too. Needs root, for the loop devices."""
    tests = str(tool.ROOT / "tests")
    if tests not in sys.path:
        sys.path.insert(0, tests)
    from simulators.vsphere_client import log_in
    from simulators.vsphere_server import run_vsphere
    from simulators.vsphere_worker import NAME, worker_of

    with ExitStack() as stack:
        minio = stack.enter_context(Minio(ground.store / "minio"))
        server = stack.enter_context(run_vsphere(ground.restores / "vsphere", direct=True))
        client = log_in(server)
        stack.enter_context(worker_of(server, client))
        site = Home(ground, minio, server, client)
        site.failback("repository", "init")
        site.pair()
        site.write_mappings(NAME)
        yield site
        if problems := server.report()["problems"]:
            raise RuntimeError(f"the stand-in had trouble: {problems}")


@contextmanager
def _agent(environment: dict[str, str], code: str = "") -> Iterator[None]:
    leash = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    given = ["--code", "-"] if code else []
    state = Path(environment["FAILBACK_STATE_DIR"])
    state.mkdir(parents=True, exist_ok=True)
    # The keys of the repository come with each order.
    own = {name: value for name, value in environment.items() if name != "FAILBACK_KEY_FILE"}
    with open(state / "agent.log", "ab") as output:
        process = subprocess.Popen(
            [*leash, *tool.failback(), "agent", "run", "--idle", str(IDLE), *given],
            env={**os.environ, **own},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(code.encode())
            process.stdin.close()
        yield
    finally:
        process.kill()
        process.wait()
