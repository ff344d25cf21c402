"""Every source that keeps the contract. To add one: its harness, here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from simulators.vsphere_server import run_vsphere

from sources.contract.command import CommandHarness
from sources.contract.harness import Harness
from sources.contract.qemu import QemuHarness
from sources.contract.simulated import SimulatedHarness
from sources.contract.vmware import VmwareHarness

NAMES = [
    "simulated",
    "simulated, nothing to quiesce",
    "command",
    "command, nothing to quiesce",
    "qemu",
    "qemu, qcow2",
    "vmware",
]


@pytest.fixture(params=NAMES)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    match request.param:
        case "simulated":
            yield SimulatedHarness(tmp_path)
        case "simulated, nothing to quiesce":
            yield SimulatedHarness(tmp_path, quiesce="none", changes=False)
        case "qemu":
            with closing(QemuHarness(tmp_path)) as qemu:
                yield qemu
        case "qemu, qcow2":
            with closing(QemuHarness(tmp_path, "qcow2")) as qemu:
                yield qemu
        case "vmware":
            with run_vsphere(tmp_path / "vsphere") as server:
                yield VmwareHarness(tmp_path, server)
        case "command":
            with closing(CommandHarness(tmp_path)) as command:
                yield command
        case "command, nothing to quiesce":
            with closing(CommandHarness(tmp_path, quiesce=None, unquiesce=None)) as command:
                yield command
