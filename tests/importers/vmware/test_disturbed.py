"""Against the stand-in, which refuses what vSphere refuses: lost answers, ended sessions, missing rights, licences."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyVmomi import vim
from simulators.vsphere_server import VSphere, run_vsphere

from importers.vmware import preflight
from importers.vmware.connection import Connection
from importers.vmware.machines import find_machine
from importers.vmware.privileges import ROLE, check_privileges
from importers.vmware.properties import values_of
from importers.vmware.tasks import Question, look, wait
from pipeline.errors import Cancelled, TargetBusy, TargetFull, TargetUnavailable, Unsupported
from pipeline.target import Intent
from vmware.points import point, wanted
from vmware.site import Control, Site, all_machines, do, make_machine, marker

Standin = tuple[Site, VSphere]


def creation(connection: Connection, site: Site) -> vim.Task:
    """A machine with our marker, ordered."""
    place = site.place(connection)
    spec = vim.vm.ConfigSpec(
        name="web-1",
        instanceUuid=str(marker(1)),
        numCPUs=1,
        memoryMB=64,
        guestId="otherGuest64",
        files=vim.vm.FileInfo(vmPathName="[LocalDS_0]"),
    )
    return connection.order(
        lambda: place.vm_folder.object.CreateVM_Task(spec, place.pool.object, None), "cannot make web-1"
    )


def test_a_create_whose_answer_is_lost_is_not_repeated_and_found_by_its_marker(standin: Standin) -> None:
    site, server = standin
    connection = site.connect()
    server.rule("CreateVM_Task", "lose")
    with pytest.raises(TargetUnavailable, match="cannot make web-1") as caught:
        creation(connection, site)
    assert "looks for what is there" in caught.value.remedy
    found = threading.Event()
    while not found.is_set():  # the task goes on at the server
        if find_machine(connection, marker(1)) is not None:
            found.set()
    assert list(all_machines(connection)) == ["web-1"]
    assert server.report()["calls"]["CreateVM_Task"] == 1


def test_a_create_that_never_arrived_leaves_nothing(standin: Standin) -> None:
    site, server = standin
    connection = site.connect()
    server.rule("CreateVM_Task", "cut")
    with pytest.raises(TargetUnavailable):
        creation(connection, site)
    assert find_machine(connection, marker(1)) is None


@pytest.mark.parametrize("status", [401, 403, 503])
def test_a_proxy_that_fails_for_a_moment_is_asked_again(standin: Standin, status: int) -> None:
    site, server = standin
    connection = site.connect()
    place = site.place(connection)
    server.rule("RetrievePropertiesEx", "status", status=status, times=2)
    assert values_of(connection, place.datacenter.object, "name")["name"] == "DC0"
    server.rule("RetrievePropertiesEx", "status", status=status, times=3)
    with pytest.raises(TargetUnavailable, match=f"answers {status}"):
        values_of(connection, place.datacenter.object, "name")


def test_every_session_ends_in_mid_task_and_the_result_still_comes(standin: Standin) -> None:
    site, server = standin
    connection = site.connect()
    machine = make_machine(connection, site.place(connection), "web-1")
    for _again in range(3):
        server.end_sessions()
        do_again(connection, machine)
    assert server.report()["problems"] == []


def do_again(connection: Connection, machine: vim.VirtualMachine) -> None:
    """An order needs a session; a question before it gets one."""
    values_of(connection, machine, "name")
    do(connection, machine.PowerOnVM_Task)
    do(connection, machine.PowerOffVM_Task)


def test_a_server_that_is_silent_for_a_while_is_waited_for(standin: Standin) -> None:
    site, server = standin
    connection = site.connect()
    task = creation(connection, site)
    server.rule("WaitForUpdatesEx", "cut", times=5)
    machine = wait(connection, task, Control(), "cannot make web-1")
    assert machine == find_machine(connection, marker(1))


def test_a_server_that_stays_silent_is_no_failure_of_the_task(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importers.vmware.tasks.PATIENCE_SECONDS", 0.0)
    site, server = standin
    connection = site.connect()
    task = creation(connection, site)
    server.rule("WaitForUpdatesEx", "cut", times=-1)
    with pytest.raises(TargetUnavailable, match="how it ended is not known"):
        wait(connection, task, Control(), "cannot make web-1")
    server.clear_rules()
    assert look(connection, connection.managed(vim.Task, task._moId)).state == "success"


def test_silence_does_not_keep_us_from_being_cancelled(standin: Standin) -> None:
    site, server = standin
    connection = site.connect()
    task = creation(connection, site)
    server.rule("WaitForUpdatesEx", "cut", times=-1)
    with pytest.raises(Cancelled):
        wait(connection, task, Control(cancel_after=1), "cannot make web-1")


def test_a_task_that_fails_is_told_by_its_fault(standin: Standin) -> None:
    site, server = standin
    server.rule("CreateVM_Task", "task-fault", fault="NoDiskSpace", text="full")
    connection = site.connect()
    task = creation(connection, site)
    with pytest.raises(TargetFull, match="cannot make web-1"):
        wait(connection, task, Control(), "cannot make web-1")


def test_a_question_at_power_on_is_answered_or_told(standin: Standin) -> None:
    site, server = standin
    connection = site.connect()
    machine = make_machine(connection, site.place(connection), "web-1")
    asked = {"id": "1", "text": "Moved or copied?", "choices": {"0": "Cancel", "1": "I copied it"}, "on_power_on": True}
    server.question("web-1", **asked)
    seen: list[Question] = []

    def answer(question: Question) -> str:
        seen.append(question)
        return "1"

    start = connection.order(machine.PowerOnVM_Task, "cannot start web-1")
    wait(connection, start, Control(), "cannot start web-1", machine=machine, answer=answer)
    assert [(q.text, q.choices["1"]) for q in seen] == [("Moved or copied?", "I copied it")]
    do(connection, machine.PowerOffVM_Task)
    server.question("web-1", **asked)
    start = connection.order(machine.PowerOnVM_Task, "cannot start web-1")
    with pytest.raises(TargetBusy, match="cannot start web-1: the machine waits for an answer: Moved or copied"):
        wait(connection, start, Control(), "cannot start web-1", machine=machine)


def test_under_the_free_licence_an_order_is_refused_with_what_it_needs(standin: Standin) -> None:
    site, server = standin
    connection = site.connect()
    server.restrict_licence()
    with pytest.raises(Unsupported, match="read-only") as caught:
        creation(connection, site)
    assert "licence" in caught.value.remedy


def test_the_free_licence_of_a_single_host_is_found_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_vsphere(tmp_path / "esxi", esx=True) as server:
        site = Site.of(server, esxi=True)
        monkeypatch.setenv("FAILBACK_VMWARE_PASSWORD", server.password)
        try:
            assert "licence" not in [f.subject for f in preflight.platform(site.connect(), site.options())]
            server.restrict_licence()
            found = [f for f in preflight.platform(site.connect(), site.options()) if f.subject == "licence"]
            assert [f.severity for f in found] == ["error"]
        finally:
            site.close()


def test_what_was_found_is_told_also_when_the_rest_cannot_be_looked_at(standin: Standin) -> None:
    site, server = standin
    server.rule("HasPrivilegeOnEntities", "fault", fault="SystemError", text="the service restarts", times=-1)
    options = site.options(hosts={f"DC0_C0_H{number}": server.host for number in range(2)})
    found = preflight.platform(site.connect(), options)
    assert [f.severity for f in found] == ["note", "error"]
    assert "cannot look at the rights" in found[-1].message
    manifest = point()
    said = wanted(manifest, networks={"*": "nowhere"})
    found = preflight.machine(site.connect(), options, manifest, said, Intent("production", boots=True))
    assert {f.subject for f in found if f.severity == "error"} == {"network nowhere", "vSphere"}


def test_rights_are_looked_at_on_each_object(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything at the root, and less on one datastore: a look at the root would see nothing missing."""
    site, server = standin
    everything = [p.id for p in ROLE] + ["System.View", "System.Read", "System.Anonymous"]
    less = [p for p in everything if p != "Datastore.AllocateSpace"]
    server.add_user("failback", "secret", {"*": everything, "LocalDS_1": less})
    monkeypatch.setenv("FAILBACK_VMWARE_PASSWORD", "secret")
    connection = site.connect(user="failback")
    found = preflight.platform(connection, site.options(user="failback", worker={"network": "VM Network"}))
    assert not [f for f in found if f.subject == "rights"]
    found = preflight.platform(
        connection, site.options(user="failback", datastore="LocalDS_1", worker={"network": "VM Network"})
    )
    [finding] = [f for f in found if f.subject == "rights"]
    assert (finding.severity, finding.message) == (
        "error",
        "the user lacks Datastore.AllocateSpace on the datastore LocalDS_1",
    )


def test_the_role_is_enough_to_make_start_and_remove_a_machine(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as the stand-in asks for rights; a real vCenter was not tried."""
    site, server = standin
    server.add_user("failback", "secret", {"*": [p.id for p in ROLE] + ["System.View", "System.Read"]})
    monkeypatch.setenv("FAILBACK_VMWARE_PASSWORD", "secret")
    connection = site.connect(user="failback")
    machine = wait(connection, creation(connection, site), Control(), "cannot make web-1")
    do(connection, machine.PowerOnVM_Task)
    do(connection, machine.PowerOffVM_Task)
    do(connection, lambda: machine.CreateSnapshot_Task("layer", "", False, False))
    do(connection, machine.Destroy_Task)
    assert find_machine(connection, marker(1)) is None


def test_a_user_with_no_rights_gets_one_error_for_each_object(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, server = standin
    server.add_user("nobody", "secret", {"*": ["System.View", "System.Read", "System.Anonymous"]})
    monkeypatch.setenv("FAILBACK_VMWARE_PASSWORD", "secret")
    connection = site.connect(user="nobody")
    place = site.place(connection)
    found = list(check_privileges(connection, [("folder", place.vm_folder), ("pool", place.pool)], []))
    assert [f.severity for f in found] == ["error", "error"]


def test_many_waiters_share_one_session(standin: Standin) -> None:
    site, server = standin
    connection = site.connect()
    place = site.place(connection)
    machines = [make_machine(connection, place, f"vm{number}") for number in range(4)]

    def turn(machine: vim.VirtualMachine) -> str:
        do(connection, machine.PowerOnVM_Task)
        return str(values_of(connection, machine, "runtime.powerState")["runtime.powerState"])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(turn, machines)) == ["poweredOn"] * 4
    assert server.report()["sessions"] == 1
