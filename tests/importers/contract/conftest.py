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
from simulators.vsphere_server import run_vsphere

from contract.files import FilesHarness
from contract.harness import Harness
from contract.qemu import QemuHarness
from contract.shed import ShedHarness
from contract.simulated import SimulatedHarness
from contract.vmware import VmwareHarness, VmwareWorkerHarness

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
]


@pytest.fixture(params=NAMES)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    if request.param.startswith("vmware"):
        if "worker" in request.param and os.geteuid() != 0:
            pytest.skip("loop devices need root")
        with run_vsphere(tmp_path / "vsphere", lease_timeout="3s") as server, ExitStack() as stack:
            worker = "worker" in request.param
            yield VmwareWorkerHarness(tmp_path, server, stack) if worker else VmwareHarness(tmp_path, server)
            assert server.report()["problems"] == []
    else:
        yield HARNESSES[request.param][0](tmp_path)


@pytest.fixture
def builder(harness: Harness) -> Harness:
    """Only of platforms that have machines."""
    if not harness.abilities.machines:
        pytest.skip("it has disks only")
    return harness
