"""Every importer that keeps the contract. To add one: its harness, here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from simulators.kinds import KINDS
from simulators.vsphere_server import VSphere, run_vsphere
from simulators.vsphere_worker import PlayedWorker

from contract.files import FilesHarness
from contract.harness import Harness
from contract.qemu import QemuHarness
from contract.shed import ShedHarness
from contract.simulated import SimulatedHarness
from contract.vmware import WORKER, VmwareHarness, VmwareOwnWorkerHarness, VmwareWorkerHarness

HARNESSES: dict[str, tuple[Callable[[Path], Harness], tuple[Any, ...]]] = {
    "files": (FilesHarness, ()),
    "qemu": (QemuHarness, ()),
    "a package of somebody else": (ShedHarness, ()),
    **{name: (partial(SimulatedHarness, abilities=abilities), ()) for name, abilities in KINDS.items()},
}
"""Name: how it is made, and pytest marks."""


NAMES = [
    *(pytest.param(name, marks=marks) for name, (_make, marks) in HARNESSES.items()),
    "vmware",
    "vmware with a worker",
    "vmware with a worker of our own",
]


@pytest.fixture(params=NAMES)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    if request.param.startswith("vmware"):
        if "worker" in request.param and os.geteuid() != 0:
            pytest.skip("loop devices need root")
        with run_vsphere(tmp_path / "vsphere", lease_timeout="3s") as server, ExitStack() as stack:
            yield _vmware(request.param, tmp_path, server, stack)
            report = server.report()
            assert report["problems"] == []
            assert len([name for name in report["machines"] if name.startswith(WORKER)]) <= 1
            assert [path for path in report["orphans"] if WORKER in path] == []
    else:
        yield HARNESSES[request.param][0](tmp_path)


def _vmware(name: str, root: Path, server: VSphere, stack: ExitStack) -> Harness:
    if "our own" in name:
        stack.enter_context(PlayedWorker(server, root / "worker"))
        return VmwareOwnWorkerHarness(root, server)
    return VmwareWorkerHarness(root, server, stack) if "worker" in name else VmwareHarness(root, server)


@pytest.fixture
def builder(harness: Harness) -> Harness:
    """Only of platforms that have machines."""
    if not harness.abilities.machines:
        pytest.skip("it has disks only")
    return harness
