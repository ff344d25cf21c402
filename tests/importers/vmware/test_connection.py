"""One session: who we are and whom we believe, what is said twice and what never is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from importers.vmware import inventory
from importers.vmware.connection import Connection
from importers.vmware.properties import children, values_of
from pipeline.errors import TargetError, TargetMismatch, TargetUnavailable, UsageError
from vmware.site import Site, make_machine


def names(connection: Connection) -> list[str]:
    found = children(connection, connection.content.rootFolder, vim.Datacenter, "name")
    return [values["name"] for _thing, values in found]


def end(site: Site, key: str) -> None:
    """The session ends, as an administrator ends it."""
    admin = site.connect()
    assert admin.end_session(key)


def counted(call: Callable[[], Any]) -> tuple[Callable[[], Any], list[int]]:
    calls: list[int] = []

    def count() -> Any:
        calls.append(1)
        return call()

    return count, calls


def test_a_vcenter_and_a_single_host_are_told_apart(vcenter: Site, esxi: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILBACK_VMWARE_PASSWORD", vcenter.password)
    assert vcenter.connect().is_vcenter
    assert not esxi.connect().is_vcenter


def test_nothing_is_connected_before_the_first_call() -> None:
    connection = Site("192.0.2.1", "me", "x", "00" * 32, esxi=True).connect()
    connection.close()


def test_a_wrong_password_is_told_with_where_it_is_corrected(vcenter: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILBACK_VMWARE_PASSWORD", "not-the-one")
    with pytest.raises(TargetError, match="user or password is wrong") as caught:
        _ = vcenter.connect().content
    assert "not-the-one" not in f"{caught.value} {caught.value.remedy}"


def test_without_address_or_user_the_options_that_say_it_are_named(vcenter: Site) -> None:
    with pytest.raises(UsageError) as caught:
        _ = vcenter.connect(address=None).content
    assert "address" in caught.value.remedy
    with pytest.raises(UsageError) as caught:
        _ = vcenter.connect(user="").content
    assert "user: NAME" in caught.value.remedy


def test_another_certificate_gets_no_password(vcenter: Site) -> None:
    connection = vcenter.connect(fingerprint="ab" * 32, password={"variable": "UNSET"})
    with pytest.raises(TargetMismatch, match="another certificate"):
        _ = connection.content


def test_without_a_pin_a_self_signed_certificate_is_not_believed(vcenter: Site) -> None:
    with pytest.raises(TargetMismatch, match="not trusted") as caught:
        _ = vcenter.connect(fingerprint="").content
    assert vcenter.fingerprint[:2].upper() in caught.value.remedy


def test_what_is_no_vsphere_is_told(tmp_path: Path, minio_endpoint: Any) -> None:
    host = minio_endpoint.endpoint.removeprefix("http://")
    with pytest.raises(TargetUnavailable, match="does not speak TLS"):
        _ = Site(host, "me", "x", "00" * 32, esxi=True).connect().content


def test_a_session_that_ended_is_renewed_for_a_question(vcenter: Site) -> None:
    connection = vcenter.connect()
    first = connection.session
    assert names(connection) == ["DC0"]
    end(vcenter, first)
    assert names(connection) == ["DC0"]
    assert connection.session != first


def test_many_threads_that_find_the_session_ended_log_in_once(vcenter: Site) -> None:
    connection = vcenter.connect()
    end(vcenter, connection.session)
    together = threading.Barrier(6)

    def look(_number: int) -> list[str]:
        together.wait()
        return names(connection)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(look, range(6))) == [["DC0"]] * 6
    sessions = values_of(connection, connection.content.sessionManager, "sessionList")["sessionList"]
    ours = [s for s in sessions if s.key == connection.session]
    assert len(ours) == 1
    assert len(sessions) == 2, "ours, and the administrator's"


def test_an_order_is_given_once_also_when_the_session_had_ended(vcenter: Site) -> None:
    connection = vcenter.connect()
    folder = values_of(connection, inventory.find_datacenter(connection, "").object, "vmFolder")["vmFolder"]
    end(vcenter, connection.session)
    order, calls = counted(lambda: folder.CreateFolder("new"))
    with pytest.raises(TargetUnavailable, match="the session has ended") as caught:
        connection.order(order, "cannot make the folder new")
    assert len(calls) == 1
    assert "looks for what is there" in caught.value.remedy
    assert connection.order(order, "cannot make the folder new"), "the next one has a session again"


def test_a_cut_connection_lets_a_question_be_put_again_and_an_order_not(vcenter: Site) -> None:
    connection = vcenter.connect()
    service = vim.ServiceInstance("ServiceInstance", connection.content.propertyCollector._stub)
    cuts = iter([ConnectionResetError("cut"), None, ConnectionResetError("cut"), None])

    def call() -> Any:
        cut = next(cuts)
        if cut is not None:
            raise cut
        return service.CurrentTime()

    assert connection.ask(call, "cannot read the clock")
    with pytest.raises(TargetUnavailable, match="cannot order that: the connection was cut"):
        connection.order(call, "cannot order that")
    assert next(cuts) is None, "the order was not repeated"


def test_the_session_is_kept_alive_while_nothing_is_asked(vcenter: Site) -> None:
    """Sessions of the simulator end after 300 ms of silence here."""
    admin = vcenter.connect()
    option = admin.content.setting
    values = [vim.option.OptionValue(key="config.vmacore.soap.sessionTimeout", value="300ms")]
    admin.order(lambda: option.UpdateValues(values), "cannot set the time limit")
    quiet, kept = vcenter.connect(), vcenter.connect(alive_seconds=0.05)
    keys = quiet.session, kept.session
    gone = threading.Event()
    deadline = 100
    watcher = vcenter.connect(alive_seconds=0.05)
    while deadline and not gone.wait(0.05):
        deadline -= 1
        there = values_of(watcher, watcher.content.sessionManager, "sessionList")["sessionList"]
        if keys[0] not in {s.key for s in there}:
            gone.set()
    assert gone.is_set(), "the quiet one ended"
    assert kept.asked(lambda: kept.content.sessionManager.SessionIsActive(keys[1], kept._options.user)) is not None
    assert names(kept) == ["DC0"]
    assert kept.session == keys[1], "it needed no new login"


def test_closing_ends_our_session(vcenter: Site) -> None:
    connection, other = vcenter.connect(), vcenter.connect()
    key = connection.session
    connection.close()
    there = values_of(other, other.content.sessionManager, "sessionList")["sessionList"]
    assert key not in {s.key for s in there}
    with pytest.raises(TargetError, match="closed"):
        _ = connection.content


def test_a_session_that_lives_serves_as_ticket_and_stays_alive(vcenter: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = vcenter.connect()
    monkeypatch.setenv("TICKET", owner.cookie().split('"')[1])
    guest = vcenter.connect(ticket={"variable": "TICKET"}, user="")
    assert names(guest) == ["DC0"]
    assert guest.session == owner.session
    guest.close()
    assert names(owner) == ["DC0"]


def test_a_clone_ticket_gives_a_session_of_its_own(vcenter: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the simulator begin with nothing by which they could be told."""
    monkeypatch.setattr("importers.vmware.connection._CLONE", "")
    owner = vcenter.connect()
    monkeypatch.setenv("TICKET", owner.content.sessionManager.AcquireCloneTicket())
    guest = vcenter.connect(ticket={"variable": "TICKET"}, user="")
    assert names(guest) == ["DC0"]
    assert guest.session != owner.session


def test_a_ticket_gives_no_second_session(vcenter: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = vcenter.connect()
    monkeypatch.setenv("TICKET", owner.cookie().split('"')[1])
    guest = vcenter.connect(ticket={"variable": "TICKET"}, user="")
    assert names(guest) == ["DC0"]
    end(vcenter, owner.session)
    with pytest.raises(TargetUnavailable, match="a ticket gives no second one"):
        names(guest)
    late = vcenter.connect(ticket={"variable": "TICKET"}, user="")
    with pytest.raises(TargetError, match="ticket"):
        names(late)


def test_ending_a_session_that_is_gone_is_no_error(vcenter: Site) -> None:
    assert vcenter.connect().end_session("52a1-no-such") is False


def test_more_objects_than_one_answer_holds_are_all_listed(vcenter: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importers.vmware.properties.PAGE", 2)
    connection = vcenter.connect()
    site = vcenter.place(connection)
    for number in range(5):
        make_machine(connection, site, f"vm{number}")
    found = children(connection, connection.content.rootFolder, vim.VirtualMachine, "name")
    assert sorted(v["name"] for _t, v in found) == [f"vm{number}" for number in range(5)]


def test_an_object_that_is_gone_is_told_so(vcenter: Site) -> None:
    connection = vcenter.connect()
    machine = connection.managed(vim.VirtualMachine, "vm-4711")
    with pytest.raises(TargetMismatch, match="it is gone"):
        values_of(connection, machine, "name")
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        connection.asked(machine.PowerOnVM_Task)
