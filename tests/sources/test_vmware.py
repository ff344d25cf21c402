"""The source of kind `vmware`: what is its own, at the stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim
from simulators.vsphere_client import machine_spec
from simulators.vsphere_server import run_vsphere

from importers.vmware import source, unattended
from importers.vmware.connection import Connection
from importers.vmware.marks import Marks
from importers.vmware.options import parse_options
from pipeline.errors import SourceError, SourceUnavailable, TargetBusy, Unsupported, UsageError
from pipeline.home.control import Controller
from sources.contract.harness import MACHINE
from sources.contract.vmware import VmwareHarness


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VmwareHarness]:
    root = tmp_path_factory.mktemp("vsphere")
    with run_vsphere(root / "vsphere") as server:
        yield VmwareHarness(root, server)


@pytest.fixture
def harness(site: VmwareHarness) -> Iterator[VmwareHarness]:
    """The machine is on, and nobody's."""
    site.server.clear_rules()
    yield site
    site.server.clear_rules()
    site.do("resume", site.seen().epoch + 1)


def epoch(harness: VmwareHarness) -> int:
    return harness.seen().epoch + 1


def own_priority(harness: VmwareHarness) -> list[str]:
    return [thing for thing in harness.things() if thing.startswith("restart priority")]


def set_priority(harness: VmwareHarness, priority: str) -> None:
    connection = Connection(parse_options(harness.options))
    try:
        machine = connection.managed(vim.VirtualMachine, harness.machine._moId)
        unattended.set_priority(connection, machine, priority, Controller())
    finally:
        connection.close()


def test_it_gives_no_disks_and_says_so(harness: VmwareHarness) -> None:
    able = harness.able
    assert (able.reads, able.quiesce, able.proof, able.locks) == (False, "none", "platform", True)
    with pytest.raises(Unsupported, match="export"):
        harness.read()


def test_the_proof_is_what_vsphere_shows(harness: VmwareHarness) -> None:
    harness.do("stop", epoch(harness))
    with harness.open() as found:
        proof = found.prove_stopped(MACHINE, {})
    assert proof.by == "platform"
    assert "runtime.powerState poweredOff" in proof.seen


@pytest.mark.parametrize("shown", ["disconnected", "notResponding", "orphaned", "inaccessible"])
def test_what_is_shown_of_a_host_that_is_not_connected_proves_nothing(
    harness: VmwareHarness, monkeypatch: pytest.MonkeyPatch, shown: str
) -> None:
    harness.do("stop", epoch(harness))
    real: Callable[..., Any] = source.values_of

    def values_of(*arguments: Any) -> dict[str, Any]:
        return {**real(*arguments), "runtime.connectionState": shown}

    monkeypatch.setattr(source, "values_of", values_of)
    state = harness.seen()
    assert (state.power, state.proved_off) == ("unknown", False)
    with pytest.raises(SourceError, match=shown):
        harness.do("prove_stopped")
    for verb in ("lock", "stop", "retire"):
        with pytest.raises(SourceUnavailable, match=shown):
            harness.do(verb, epoch(harness))


def test_a_lost_answer_to_power_off_is_looked_after(harness: VmwareHarness) -> None:
    harness.server.rule("PowerOffVM_Task", "lose", times=1)
    number = epoch(harness)
    try:
        harness.do("stop", number)
    except SourceUnavailable:
        harness.do("stop", number)
    assert harness.seen().proved_off


def test_the_guest_shuts_down_when_it_can_and_is_switched_off_when_it_does_not(harness: VmwareHarness) -> None:
    for stubborn, hard in ((False, 0), (True, 1)):
        harness.server.guest(MACHINE, stubborn=stubborn)
        harness.server.forget()
        harness.do("stop", epoch(harness), seconds=3.0)
        assert harness.seen().proved_off
        calls = harness.server.report()["calls"]
        assert calls["ShutdownGuest"] == 1
        assert calls.get("PowerOffVM_Task", 0) == hard
        harness.do("resume", epoch(harness))
    harness.server.guest(MACHINE, stubborn=False)


def test_a_note_is_refused_when_the_machine_changed_since_it_was_looked_at(harness: VmwareHarness) -> None:
    """Two conductors of different hosts: one of them wins."""
    connection = Connection(parse_options(harness.options))
    try:
        machine = connection.managed(vim.VirtualMachine, harness.machine._moId)
        first, second = (Marks(connection, machine, Controller()) for _ in range(2))
        assert first.get("tried") == second.get("tried") == ""
        first.note("tried", "1")
        with pytest.raises(TargetBusy):
            second.note("tried", "2")
        assert second.get("tried") == "1"
        second.note("tried", "")
    finally:
        connection.close()


@pytest.mark.parametrize("before", ["", "high"])
def test_the_restart_priority_is_what_it_was_after_the_way_back(harness: VmwareHarness, before: str) -> None:
    set_priority(harness, before)
    shown = own_priority(harness)
    number = epoch(harness)
    for verb in ("stop", "lock", "lock"):
        harness.do(verb, number)
    assert own_priority(harness) == ["restart priority disabled"]
    harness.do("resume", number + 1)
    assert own_priority(harness) == (shown or ["restart priority clusterRestartPriority"])
    assert not before or shown == [f"restart priority {before}"]
    set_priority(harness, "")


def test_autostart_is_switched_off_by_the_machines_own_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against no server: the stand-in has no such list."""
    asked = []

    class Manager:
        def ReconfigureAutostart(self, spec: Any) -> None:
            asked.append(spec)

    machine = vim.VirtualMachine("vm-1", None)
    entry = vim.host.AutoStartManager.AutoPowerInfo(
        key=machine, startOrder=2, startDelay=10, waitForHeartbeat="no", startAction="powerOn", stopDelay=-1,
        stopAction="systemDefault",
    )  # fmt: skip
    connection: Any = type("Asked", (), {"ask": staticmethod(lambda question, _about: question())})
    monkeypatch.setattr(unattended, "_manager", lambda _connection, _machine: Manager())
    monkeypatch.setattr(unattended, "_entry", lambda _connection, _manager, _machine: entry)
    assert unattended.autostart_of(connection, machine) == "powerOn"
    unattended.set_autostart(connection, machine, unattended.NONE)
    unattended.set_autostart(connection, machine, unattended.NONE)
    [spec] = asked
    [changed] = spec.powerInfo
    assert (changed.key, changed.startAction, changed.startOrder) == (machine, "none", 2)


def test_a_machine_is_named_without_doubt(harness: VmwareHarness) -> None:
    with harness.open() as found:
        with pytest.raises(UsageError, match="no machine"):
            found.observe("nobody", {})
        [finding] = found.preflight("nobody", {})
        assert finding.severity == "error"
        assert found.observe("nobody", {"name": MACHINE}).power == "on"
        instance = harness.client.get(harness.machine, "config.instanceUuid")
        assert found.observe("nobody", {"instance": instance}).power == "on"
        with pytest.raises(UsageError, match="instance"):
            found.observe("nobody", {"instance": "no-uuid"})


def test_two_machines_of_one_name_are_not_chosen_from(harness: VmwareHarness) -> None:
    folder = harness.client.folder.CreateFolder("another")
    other = harness.client.wait(folder.CreateVM_Task(machine_spec(MACHINE), harness.client.pool, None))
    try:
        with pytest.raises(UsageError, match="2 machines"):
            harness.seen()
    finally:
        harness.client.wait(other.Destroy_Task())


def test_preflight_names_missing_rights_and_that_nothing_keeps_people_out(
    harness: VmwareHarness, tmp_path: Path
) -> None:
    harness.server.add_user(
        "reader", "secret-1", {"*": ["System.View", "System.Read", "VirtualMachine.Interact.PowerOn"]}
    )
    (tmp_path / "password").write_text("secret-1")
    said = harness.options
    harness.options = {**said, "user": "reader", "password": {"file": str(tmp_path / "password")}}
    try:
        with harness.open() as found:
            findings = {finding.subject: finding for finding in found.preflight(MACHINE, {})}
    finally:
        harness.options = said
    assert "VirtualMachine.Interact.PowerOff" in findings["rights"].message
    assert "VirtualMachine.Interact.PowerOn" not in findings["rights"].message
    assert "switching it on" in findings["lock"].message
