"""The stand-in breaks what a test tells it to break: calls, answers, uploads, sessions, rights."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pyVmomi import vim

from simulators.vsphere_client import Client, TaskFailed, attach_spec, eventually, log_in, machine_spec, upload
from simulators.vsphere_server import VSphere, run_vsphere


def lease_url(client: Client, lease: Any) -> str:
    url: str = client.get(lease, "info").deviceUrl[0].url
    return url


def test_a_refused_call_has_no_effect(client: Client, name: str, server: VSphere) -> None:
    server.rule("CreateVM_Task", "fault", fault="NotAuthenticated", text="The session is not authenticated.")
    with pytest.raises(vim.fault.NotAuthenticated, match="not authenticated"):
        client.create(machine_spec(name))
    assert name not in server.report()["machines"]
    client.create(machine_spec(name))


def test_a_failed_task_has_no_effect(client: Client, name: str, server: VSphere) -> None:
    machine = client.create(machine_spec(name))
    server.rule(
        "PowerOnVM_Task", "task-fault", object=name, fault="InsufficientMemoryResourcesFault", text="No memory."
    )
    with pytest.raises(TaskFailed, match="No memory"):
        client.wait(machine.PowerOnVM_Task())
    assert client.get(machine, "runtime.powerState") == "poweredOff"
    client.wait(machine.PowerOnVM_Task())


def test_a_lost_answer_leaves_the_effect(client: Client, name: str, server: VSphere) -> None:
    server.rule("CreateVM_Task", "lose")
    with pytest.raises(OSError):  # noqa: PT011 - how a connection breaks is up to the system
        client.folder.CreateVM_Task(machine_spec(name), client.pool, None)
    eventually(lambda: name in server.report()["machines"])


def test_a_cut_connection_leaves_nothing(client: Client, name: str, server: VSphere) -> None:
    server.rule("CreateVM_Task", "cut", skip=1)
    client.create(machine_spec(name))
    with pytest.raises(OSError):  # noqa: PT011
        client.folder.CreateVM_Task(machine_spec(name + "-cut"), client.pool, None)
    assert list(server.report()["machines"]).count(name + "-cut") == 0
    assert server.rules()[0]["fired"] == 1


@pytest.mark.parametrize("status", [401, 403, 503])
def test_a_status_of_the_web_server(client: Client, server: VSphere, status: int) -> None:
    server.rule("CurrentTime", "status", status=status)
    with pytest.raises(Exception, match=str(status)):
        client.instance.CurrentTime()
    client.instance.CurrentTime()


def test_a_delayed_call(client: Client, server: VSphere) -> None:
    server.rule("CurrentTime", "delay", milliseconds=300)
    started = time.monotonic()
    client.instance.CurrentTime()
    assert time.monotonic() - started >= 0.3


def test_a_misspelt_rule_is_refused(server: VSphere) -> None:
    with pytest.raises(ValueError, match="no fault"):
        server.rule("CurrentTime", "fault", fault="NoSuchFault")
    with pytest.raises(ValueError, match="no action"):
        server.rule("CurrentTime", "explode")
    with pytest.raises(ValueError, match="unknown field"):
        server.rule("CurrentTime", "cut", after=3)


def test_an_upload_cut_in_the_middle_can_be_sent_again(
    client: Client, name: str, server: VSphere, stream: bytes, raw: bytes
) -> None:
    lease = client.lease(machine_spec(name))
    server.rule("nfc", "cut", at=2000)
    with pytest.raises(OSError):  # noqa: PT011
        upload(lease_url(client, lease), stream * 1)
    with pytest.raises(vim.fault.InvalidState):
        lease.HttpNfcLeaseComplete()
    assert upload(lease_url(client, lease), stream).status == 201
    lease.HttpNfcLeaseComplete()
    assert Path(server.machine(name)["disks"][0]["file"]).read_bytes() == raw
    [transfer] = [sent for disk, sent in server.report()["uploads"].items() if name in disk]
    assert (transfer["attempts"], transfer["whole"]) == (2, 1)


@pytest.mark.parametrize("status", [401, 503])
def test_a_refused_upload(client: Client, name: str, server: VSphere, stream: bytes, status: int) -> None:
    lease = client.lease(machine_spec(name))
    server.rule("nfc", "status", status=status)
    assert upload(lease_url(client, lease), stream).status == status
    lease.HttpNfcLeaseAbort()


def test_a_lease_that_fails_at_99_percent(client: Client, name: str, server: VSphere, stream: bytes) -> None:
    server.rule("lease", "fault", at=99, fault="SystemError", text="The host lost its storage.")
    lease = client.lease(machine_spec(name))
    assert upload(lease_url(client, lease), stream).status == 201
    lease.HttpNfcLeaseProgress(98)
    with pytest.raises(Exception, match="lost its storage"):
        lease.HttpNfcLeaseProgress(99)
    eventually(lambda: client.get(lease, "state") == "error")
    eventually(lambda: name not in server.report()["machines"])


def test_the_host_can_be_gone_while_vcenter_answers(client: Client, name: str, server: VSphere, stream: bytes) -> None:
    lease = client.lease(machine_spec(name))
    server.set_host(reachable=False)
    try:
        with pytest.raises(OSError):  # noqa: PT011
            upload(lease_url(client, lease), stream)
        assert client.get(lease, "state") == "ready"
    finally:
        server.set_host(reachable=True)
    assert upload(lease_url(client, lease), stream).status == 201
    lease.HttpNfcLeaseAbort()


def test_uploads_are_held_to_a_rate(client: Client, name: str, server: VSphere, stream: bytes) -> None:
    lease = client.lease(machine_spec(name))
    server.set_host(rate=len(stream))  # a second, less the credit of 0.2 s
    try:
        started = time.monotonic()
        assert upload(lease_url(client, lease), stream).status == 201
        assert time.monotonic() - started >= 0.75
    finally:
        server.set_host(rate=0)
    lease.HttpNfcLeaseAbort()


def test_an_upload_may_stall(client: Client, name: str, server: VSphere, stream: bytes) -> None:
    lease = client.lease(machine_spec(name))
    server.rule("nfc", "delay", at=1000, milliseconds=500)
    started = time.monotonic()
    assert upload(lease_url(client, lease), stream).status == 201
    assert time.monotonic() - started >= 0.5
    lease.HttpNfcLeaseAbort()


def test_the_answer_to_an_upload_may_be_lost(client: Client, name: str, server: VSphere, stream: bytes) -> None:
    lease = client.lease(machine_spec(name))
    server.rule("nfc", "lose")
    with pytest.raises(OSError):  # noqa: PT011
        upload(lease_url(client, lease), stream)
    lease.HttpNfcLeaseComplete()
    assert name in server.report()["machines"]


def test_a_file_can_be_refused_and_cut(client: Client, server: VSphere) -> None:
    server.rule("folder", "status", status=503)
    assert client.file("[LocalDS_0] x").status == 503
    server.rule("folder", "cut", object="x")
    assert client.file("[LocalDS_0] y").status == 404
    with pytest.raises(OSError):  # noqa: PT011
        client.file("[LocalDS_0] x")


def test_ended_sessions_are_told(client: Client, server: VSphere) -> None:
    server.end_sessions()
    with pytest.raises(vim.fault.NotAuthenticated):
        client.instance.CurrentTime()
    assert client.file("[LocalDS_0] x").status == 401
    log_in(server).instance.CurrentTime()


def test_a_wrong_password_is_refused(server: VSphere) -> None:
    with pytest.raises(vim.fault.InvalidLogin):
        log_in(server, server.user, "wrong")


def test_an_idle_session_ends(tmp_path: Path) -> None:
    with run_vsphere(tmp_path, session_timeout="1s") as server:
        client = log_in(server)
        client.instance.CurrentTime()
        eventually(lambda: server.report()["sessions"] == 0)
        with pytest.raises(vim.fault.NotAuthenticated):
            client.instance.CurrentTime()


ROLE = ["VirtualMachine.Inventory.Create", "Resource.AssignVMToPool", "VirtualMachine.Config.AddNewDisk"]


def test_a_missing_privilege_is_named(client: Client, name: str, server: VSphere) -> None:
    server.add_user(
        "few@vsphere.local", "secret", {"*": [*ROLE], "LocalDS_1": [], "DC0": [*ROLE, "Datastore.AllocateSpace"]}
    )
    few = log_in(server, "few@vsphere.local", "secret")
    machine = few.create(machine_spec(name))
    with pytest.raises(vim.fault.NoPermission) as denied:
        few.create(machine_spec(name + "-other", datastore="LocalDS_1"))
    assert denied.value.privilegeId == "Datastore.AllocateSpace"
    assert denied.value.object == few.named(vim.Datastore, "LocalDS_1")
    with pytest.raises(vim.fault.NoPermission) as denied:
        machine.PowerOnVM_Task()
    assert denied.value.privilegeId == "VirtualMachine.Interact.PowerOn"
    with pytest.raises(vim.fault.NoPermission) as denied:
        machine.ReconfigVM_Task(attach_spec("[LocalDS_0] x/x.vmdk"))
    assert denied.value.privilegeId == "VirtualMachine.Config.AddExistingDisk"
    manager = few.content.authorizationManager
    session = few.content.sessionManager.currentSession.key
    wanted = ["Datastore.AllocateSpace", "VirtualMachine.Interact.PowerOn"]
    entities = [few.named(vim.Datastore, "LocalDS_0"), few.named(vim.Datastore, "LocalDS_1")]
    answers = manager.HasPrivilegeOnEntities(entities, session, wanted)
    granted = {answer.entity.name: [p.isGranted for p in answer.privAvailability] for answer in answers}
    assert granted == {"LocalDS_0": [True, False], "LocalDS_1": [False, False]}


def test_the_free_licence_only_reads(client: Client, name: str, server: VSphere) -> None:
    server.restrict_licence()
    try:
        with pytest.raises(vim.fault.RestrictedVersion):
            client.create(machine_spec(name))
        assert client.pool.name
    finally:
        server.restrict_licence(False)


def test_files_of_a_datastore_want_a_session(client: Client, name: str) -> None:
    datacenter = client.all(vim.Datacenter)[0]
    client.content.fileManager.MakeDirectory(f"[LocalDS_0] {name}", datacenter)
    path = f"[LocalDS_0] {name}/note.txt"
    assert client.file(path, "PUT", data=b"0123456789", cookie=False).status == 401
    assert client.file(path, "PUT", data=b"0123456789").status == 201
    assert client.file(path).body == b"0123456789"
    assert client.file(path, Range="bytes=2-4").body == b"234"
    assert client.file(path, "HEAD").status == 200
    assert client.file(path, "PUT", data=b"ab", **{"Content-Range": "bytes 0-1/10"}).status == 200
    assert client.file(path).body == b"ab", "a range does not patch: the file is replaced"
    assert client.file(path, "DELETE").status == 204
    assert client.file(path).status == 404
    assert client.file("[LocalDS_0] nowhere/x", "PUT", data=b"x").status == 404


def test_a_file_in_use_breaks_the_connection(client: Client, name: str, server: VSphere) -> None:
    machine = client.create(machine_spec(name))
    flat = client.get(machine, "config.files.vmPathName").replace(".vmx", "-flat.vmdk")
    assert client.file(flat).status == 200
    client.wait(machine.PowerOnVM_Task())
    with pytest.raises(OSError):  # noqa: PT011
        client.file(flat)


class Source(BaseHTTPRequestHandler):
    content: ClassVar[bytes] = b""
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_HEAD(self) -> None:
        self.asked.append((self.command, self.headers.get("Authorization")))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def source(stream: bytes) -> Iterator[str]:
    Source.content, Source.asked[:] = stream, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Source)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/disk.vmdk"
    server.shutdown()
    server.server_close()


def test_a_host_pulls_the_disks_itself(
    client: Client, name: str, server: VSphere, source: str, stream: bytes, raw: bytes
) -> None:
    lease = client.lease(machine_spec(name))
    assert client.get(lease, "capabilities").pullModeSupported
    key = client.get(lease, "info").deviceUrl[0].importKey
    file = vim.HttpNfcLease.SourceFile(targetDeviceId=key, url=source, create=False)
    file.httpHeaders = [vim.KeyValue(key="Authorization", value="Bearer x")]
    assert [probe.serverAccessible for probe in lease.HttpNfcLeaseProbeUrls([file], 5)] == [True]
    client.wait(lease.HttpNfcLeasePullFromUrls_Task([file]))
    assert Source.asked == [("HEAD", "Bearer x"), ("HEAD", "Bearer x"), ("GET", "Bearer x")]
    [entry] = lease.HttpNfcLeaseGetManifest()
    assert entry.sha1 == hashlib.sha1(stream).hexdigest()
    lease.HttpNfcLeaseComplete()
    assert Path(server.machine(name)["disks"][0]["file"]).read_bytes() == raw


def test_a_pull_from_nowhere_fails(client: Client, name: str) -> None:
    lease = client.lease(machine_spec(name))
    key = client.get(lease, "info").deviceUrl[0].importKey
    file = vim.HttpNfcLease.SourceFile(targetDeviceId=key, url="http://127.0.0.1:1/x", create=False, size=5)
    assert [probe.serverAccessible for probe in lease.HttpNfcLeaseProbeUrls([file], 5)] == [False]
    with pytest.raises(TaskFailed, match="Cannot pull"):
        client.wait(lease.HttpNfcLeasePullFromUrls_Task([file]))
    lease.HttpNfcLeaseAbort()


def test_datastore_clusters_can_be_had(tmp_path: Path) -> None:
    with run_vsphere(tmp_path, pods=1, datastores=3) as server:
        client = log_in(server)
        [pod] = client.all(vim.StoragePod)
        first = client.named(vim.Datastore, "LocalDS_0")
        client.wait(pod.MoveIntoFolder_Task([first]))
        assert client.get(pod, "childEntity") == [first]
        client.create(machine_spec("in-the-pod"))
        assert client.file("[LocalDS_0] in-the-pod/in-the-pod.vmx").status == 200


def test_a_single_host_takes_uploads_where_its_api_is(tmp_path: Path, stream: bytes, raw: bytes) -> None:
    with run_vsphere(tmp_path, esx=True) as server:
        client = log_in(server)
        lease = client.lease(machine_spec("alone"))
        url = lease_url(client, lease)
        assert url.startswith("https://*/")
        assert upload(url.replace("*", f"{server.address}:{server.port}"), stream).status == 201
        lease.HttpNfcLeaseComplete()
        assert Path(server.machine("alone")["disks"][0]["file"]).read_bytes() == raw


def test_the_stock_simulator_answers_too(tmp_path: Path, stream: bytes) -> None:
    with run_vsphere(tmp_path, stock=True) as server:
        assert (server.control, server.host) == ("", "")
        client = log_in(server)
        lease = client.lease(machine_spec("stock"))
        assert upload(lease_url(client, lease), stream).status == 200
        assert lease.HttpNfcLeaseGetManifest()[0].sha1 == hashlib.sha1(stream).hexdigest()
        lease.HttpNfcLeaseComplete()
        client.wait(client.named(vim.VirtualMachine, "stock").PowerOnVM_Task())
