"""Users are let in to machines of vSphere by moving their adapters while they run, and kept out again; and what they
wrote is known."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulators.vsphere_client import log_in
from simulators.vsphere_server import VSphere, run_vsphere

# The harness of the contract suite beside us.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract.vmware import VmwareHarness
from pyVmomi import vim

from importers.vmware.target import VmwareImporter
from pipeline.errors import TargetBusy, TargetError
from pipeline.home.control import Controller
from pipeline.plans.traffic import Way
from pipeline.plans.traffics.port_group import PortGroupGate, PortGroupSettings, Rewires
from pipeline.target import Build, Importer, Writing

LAN, QUARANTINE = "VM Network", "DC0_DVPG0"
MIB = 1 << 20
GRAIN = 64 << 10
"""What the harness lets a guest write."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VSphere]:
    with run_vsphere(tmp_path_factory.mktemp("vsphere")) as running:
        yield running
        assert running.report()["problems"] == []


class Home:
    """A machine that runs in production, and the way that a traffic step is given to it."""

    def __init__(self, harness: VmwareHarness, importer: Importer, network: str | None) -> None:
        self.harness, self.importer = harness, importer
        self.wanted = harness.wanted(networks={"*": {"name": network} if network else {"isolated": True}})
        place = harness.staged(importer)
        assert place.stage is not None
        build = importer.build(place, place.stage, self.wanted, "production")
        importer.boot(build, build.networks)
        self.way = Way("shop", "run", Controller(), lambda _name: (importer, self.build), {"FAILBACK_MACHINES": "vm"})

    @property
    def build(self) -> Build:
        build = self.harness.found(self.importer).build
        assert build is not None
        return build

    def card(self) -> str:
        """What the machine's first card is in, and its address, as anybody sees it."""
        client = log_in(self.harness.server)
        machine = client.named(vim.VirtualMachine, self.build.name)
        [card] = [d for d in client.get(machine, "config.hardware.device") if hasattr(d, "macAddress")]
        [network] = client.get(machine, "network")
        plugged = "plugged" if card.connectable.connected else "pulled"
        return f"{client.get(network, 'name')} {plugged} {card.macAddress}"


@pytest.fixture
def home(tmp_path: Path, server: VSphere) -> Iterator[Callable[[str | None], Home]]:
    server.forget()
    harness = VmwareHarness(tmp_path, server)
    with harness.open() as importer:
        yield lambda network: Home(harness, importer, network)
        importer.remove(harness.marker)
    server.clear_rules()
    assert harness.things() == []


def gate(closed: str | None, adapter: int = 0) -> PortGroupGate:
    return PortGroupGate(PortGroupSettings(open=LAN, closed=closed, adapter=adapter))


@pytest.mark.parametrize("closed", [QUARANTINE, None])
def test_users_are_let_in_and_kept_out_while_the_machine_runs(
    home: Callable[[str | None], Home], server: VSphere, closed: str | None
) -> None:
    at = home(closed)
    assert at.harness.found(at.importer).ref["name"] == "vm", "who has to look for it by hand finds it by that"
    before = at.card()
    mac = before.split()[-1]
    shut = "failback-isolated" if closed is None else closed
    assert before == f"{shut} plugged {mac}"
    assert gate(closed).observe(at.way) == "closed"
    gate(closed).close(at.way)
    assert at.card() == before
    assert gate(closed).open(at.way) == f"adapter 0 of vm is in {LAN}"
    assert gate(closed).observe(at.way) == "open"
    assert at.card() == f"{LAN} plugged {mac}"
    assert [n.name for n in at.build.networks] == [LAN]

    changes = server.report()["calls"]["ReconfigVM_Task"]
    gate(closed).open(at.way)
    assert server.report()["calls"]["ReconfigVM_Task"] == changes, "it is there already"
    gate(closed).close(at.way)
    assert gate(closed).observe(at.way) == "closed"
    assert at.card() == before
    assert [n.name for n in at.build.networks] == [closed]


def test_a_lost_answer_is_looked_after_and_going_back_leaves_the_stage_as_it_was(
    home: Callable[[str | None], Home], server: VSphere
) -> None:
    at = home(QUARANTINE)
    server.rule("ReconfigVM_Task", "lose")
    gate(QUARANTINE).open(at.way)
    assert gate(QUARANTINE).observe(at.way) == "open"
    importer, build = at.importer, at.build
    importer.stop(build, seconds=0)
    stage = importer.finish(at.harness.found(importer), build, keep=False)
    assert importer.check(stage) == "", "the disks need not be read again"
    again = importer.build(at.harness.found(importer), stage, at.wanted, "production")
    assert [n.name for n in again.networks] == [QUARANTINE]
    assert gate(QUARANTINE).observe(at.way) == "closed"


def test_what_cannot_be_moved_is_said(home: Callable[[str | None], Home], server: VSphere) -> None:
    at = home(QUARANTINE)
    with pytest.raises(TargetError, match="vm has 1 network adapters: there is no number 3"):
        gate(QUARANTINE, adapter=3).open(at.way)
    assert gate(QUARANTINE, adapter=3).observe(at.way) == "unknown"
    with pytest.raises(TargetError, match="lan"):
        PortGroupGate(PortGroupSettings(open="lan")).open(at.way)
    server.rule("ReconfigVM_Task", "task-fault", fault="TaskInProgress", text="busy")
    with pytest.raises(TargetBusy):
        gate(QUARANTINE).open(at.way)
    assert gate(QUARANTINE).observe(at.way) == "closed"
    at.importer.stop(at.build, seconds=0)
    gate(QUARANTINE).open(at.way)
    assert gate(QUARANTINE).observe(at.way) == "open", "it starts there"


def test_what_a_machine_wrote_since_it_was_built_is_known(home: Callable[[str | None], Home]) -> None:
    at = home(None)
    importer = at.importer
    assert isinstance(importer, VmwareImporter)
    assert isinstance(importer, Rewires)
    assert isinstance(importer, Writing)
    build = at.build
    before = importer.written(build)
    assert before is not None
    assert before < MIB
    at.harness.ran(importer, at.harness.found(importer))
    after = importer.written(build)
    assert after is not None
    assert GRAIN <= after - before < MIB
    importer.stop(build, seconds=0)
    importer.finish(at.harness.found(importer), build, keep=False)
    assert importer.written(build) is None, "there is no layer"
