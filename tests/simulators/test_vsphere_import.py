"""The stand-in takes what a host takes by NFC, refuses the rest, and leaves nothing behind."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim, vmodl

from simulators.vsphere_client import (
    Client,
    TaskFailed,
    eventually,
    log_in,
    machine_spec,
    upload,
)
from simulators.vsphere_server import VSphere, run_vsphere


def disk_file(server: VSphere, machine: str) -> Path:
    return Path(server.machine(machine)["disks"][0]["file"])


def test_what_is_uploaded_is_what_the_disk_holds(
    client: Client, name: str, server: VSphere, stream: bytes, raw: bytes
) -> None:
    lease = client.lease(machine_spec(name))
    info = client.get(lease, "info")
    [url] = info.deviceUrl
    assert url.url.startswith(f"https://{server.host}/")
    assert url.sslThumbprint
    assert upload(url.url, stream).status == 201
    [entry] = lease.HttpNfcLeaseGetManifest()
    assert (entry.key, entry.sha1, entry.size) == (url.key, hashlib.sha1(stream).hexdigest(), len(stream))
    lease.HttpNfcLeaseComplete()
    eventually(lambda: client.get(lease, "state") == "done")
    assert disk_file(server, name).read_bytes() == raw
    assert server.report()["uploads"][f"[LocalDS_0] {name}/{name}.vmdk"]["whole"] == 1


def test_a_host_may_write_the_stream_as_it_comes(tmp_path: Path, stream: bytes, raw: bytes) -> None:
    """The same disk as through qemu-img, and damage is seen."""
    with run_vsphere(tmp_path, direct=True) as server:
        client = log_in(server)
        lease = client.lease(machine_spec("direct"))
        url = client.get(lease, "info").deviceUrl[0]
        lease.HttpNfcLeaseSetManifestChecksumType([vim.KeyValue(key=url.key, value="sha256")])
        grain = stream.index(b"\x78\x9c")
        assert upload(url.url, patched(stream, grain, b"\0\0")).status == 400
        assert upload(url.url, stream[: 129 * 512]).status == 400
        assert upload(url.url, stream).status == 201
        [entry] = lease.HttpNfcLeaseGetManifest()
        assert (entry.checksumType, entry.checksum) == ("sha256", hashlib.sha256(stream).hexdigest())
        lease.HttpNfcLeaseComplete()
        assert disk_file(server, "direct").read_bytes() == raw


def patched(stream: bytes, offset: int, value: bytes) -> bytes:
    return stream[:offset] + value + stream[offset + len(value) :]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: patched(data, 4, struct.pack("<I", 1)), b"too old"),
        (lambda data: patched(data, 8, struct.pack("<I", 1)), b"not streamOptimized"),
        (lambda data: patched(data, 12, struct.pack("<Q", 512)), b"the disk of the machine"),
        (lambda data: b"\0" * len(data), b"no sparse VMDK"),
        (lambda data: data.replace(b"streamOptimized", b"monolithicSpars"), b"createType"),
        (lambda data: data[:200], b"header"),
    ],
    ids=["version 1", "not compressed", "another capacity", "no VMDK", "another kind", "cut off"],
)
def test_a_stream_that_a_host_would_refuse_is_refused(
    client: Client, name: str, stream: bytes, damage: Any, reason: bytes
) -> None:
    lease = client.lease(machine_spec(name))
    answer = upload(client.get(lease, "info").deviceUrl[0].url, damage(stream))
    assert answer.status == 400
    assert reason in answer.body
    lease.HttpNfcLeaseAbort()


def test_another_content_type_is_refused(client: Client, name: str, stream: bytes) -> None:
    lease = client.lease(machine_spec(name))
    assert upload(client.get(lease, "info").deviceUrl[0].url, stream, kind="application/octet-stream").status == 415
    lease.HttpNfcLeaseAbort()


def test_an_upload_without_a_length_is_refused(client: Client, name: str, stream: bytes) -> None:
    lease = client.lease(machine_spec(name))
    assert upload(client.get(lease, "info").deviceUrl[0].url, iter([stream])).status == 411
    lease.HttpNfcLeaseAbort()


def test_a_lease_without_its_disks_is_not_completed(client: Client, name: str) -> None:
    lease = client.lease(machine_spec(name))
    with pytest.raises(vim.fault.InvalidState):
        lease.HttpNfcLeaseComplete()
    lease.HttpNfcLeaseAbort()


def test_a_completed_lease_takes_nothing_more(client: Client, name: str, stream: bytes) -> None:
    lease = client.lease(machine_spec(name))
    url = client.get(lease, "info").deviceUrl[0].url
    assert upload(url, stream).status == 201
    lease.HttpNfcLeaseComplete()
    assert upload(url, stream).status == 404
    with pytest.raises(vim.fault.InvalidState):
        lease.HttpNfcLeaseComplete()


def test_a_machine_under_a_lease_is_left_alone(client: Client, name: str) -> None:
    lease = client.lease(machine_spec(name))
    machine = client.get(lease, "info").entity
    for start in (
        machine.PowerOnVM_Task,
        machine.Destroy_Task,
        lambda: machine.ReconfigVM_Task(vim.vm.ConfigSpec(numCPUs=2)),
        lambda: machine.CreateSnapshot_Task("s", "", False, False),
    ):
        with pytest.raises(TaskFailed) as failed:
            client.wait(start())
        assert isinstance(failed.value.fault, vim.fault.TaskInProgress)
    lease.HttpNfcLeaseAbort()


def test_an_aborted_lease_leaves_nothing(client: Client, name: str, server: VSphere, stream: bytes) -> None:
    lease = client.lease(machine_spec(name))
    assert upload(client.get(lease, "info").deviceUrl[0].url, stream).status == 201
    lease.HttpNfcLeaseAbort()
    eventually(lambda: name not in server.report()["machines"])
    assert client.get(lease, "state") == "error"
    assert not [path for path in server.report()["disks"] if f"{name}/" in path]
    assert server.report()["orphans"] == []


def test_a_lease_that_nobody_renews_times_out(client: Client, name: str, server: VSphere) -> None:
    lease = client.lease(machine_spec(name))
    assert client.get(lease, "info").leaseTimeout == 2
    eventually(lambda: client.get(lease, "state") == "error")
    assert isinstance(client.get(lease, "error"), vim.fault.Timedout)
    with pytest.raises(vim.fault.Timedout):
        lease.HttpNfcLeaseProgress(50)
    eventually(lambda: name not in server.report()["machines"])
    assert server.report()["orphans"] == []


def test_an_upload_breaks_off_when_its_lease_ends(client: Client, name: str, server: VSphere, stream: bytes) -> None:
    lease = client.lease(machine_spec(name))
    server.set_host(rate=len(stream) // 20)
    try:
        with pytest.raises(OSError):  # noqa: PT011 - the connection
            upload(client.get(lease, "info").deviceUrl[0].url, stream)
    finally:
        server.set_host(rate=0)
    assert isinstance(client.get(lease, "error"), vim.fault.Timedout)
    eventually(lambda: name not in server.report()["machines"])
    assert server.report()["orphans"] == []


def test_progress_keeps_a_lease(client: Client, name: str, stream: bytes) -> None:
    lease = client.lease(machine_spec(name))
    other = client.lease(machine_spec(name + "-other"))

    def renewed() -> bool:
        lease.HttpNfcLeaseProgress(10)
        return bool(client.get(other, "state") == "error")

    eventually(renewed)
    assert client.get(lease, "state") == "ready"
    lease.HttpNfcLeaseAbort()


def test_a_lease_belongs_to_its_session_and_ends_with_it(client: Client, name: str, server: VSphere) -> None:
    lease = client.lease(machine_spec(name))
    other = log_in(server)
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        vim.HttpNfcLease(lease._moId, other.instance._stub).HttpNfcLeaseProgress(1)
    key = client.content.sessionManager.currentSession.key
    other.content.sessionManager.TerminateSession([key])
    eventually(lambda: name not in server.report()["machines"])
    with pytest.raises(vim.fault.NotAuthenticated):
        client.instance.CurrentTime()


def test_cancelling_the_task_ends_the_lease(client: Client, name: str, server: VSphere) -> None:
    lease = client.lease(machine_spec(name))
    tasks = client.get(client.content.taskManager, "recentTask")
    running = [task for task in tasks if client.get(task, "info.state") == "running"]
    assert [client.get(task, "info.name") for task in running] == ["ImportVAppLRO"]
    running[0].CancelTask()
    eventually(lambda: client.get(lease, "state") == "error")
    eventually(lambda: name not in server.report()["machines"])


def test_a_taken_name_fails_the_lease(client: Client, name: str, stream: bytes) -> None:
    client.imported(name, stream)
    lease = client.lease(machine_spec(name))
    assert client.get(lease, "state") == "error"
    assert isinstance(client.get(lease, "error"), vim.fault.DuplicateName)


def test_a_full_datastore_fails_the_lease(client: Client, name: str, server: VSphere, stream: bytes) -> None:
    lease = client.lease(machine_spec(name, datastore="LocalDS_1"))
    server.resize("LocalDS_1", 4096)
    assert upload(client.get(lease, "info").deviceUrl[0].url, stream).status == 500
    eventually(lambda: client.get(lease, "state") == "error")
    assert isinstance(client.get(lease, "error"), vim.fault.NoDiskSpace)
    server.resize("LocalDS_1", 1 << 40)


def test_a_lease_that_is_cancelled_while_its_machine_is_made_leaves_nothing(
    client: Client, name: str, server: VSphere
) -> None:
    lease = client.pool.ImportVApp(vim.vm.VmImportSpec(configSpec=machine_spec(name, disks=8)), client.folder, None)
    lease.HttpNfcLeaseAbort()
    eventually(lambda: client.get(lease, "state") == "error")
    client.create(machine_spec(name + "-other"))  # a folder makes one machine after the other
    eventually(lambda: name not in server.report()["machines"] and not server.report()["orphans"])
    assert not [path for path in server.report()["disks"] if f"{name}/" in path]
