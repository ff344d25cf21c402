"""An upload that is disturbed in the middle: the same command goes on, or ends by saying why, and nothing is left of
what was half made. One stand-in for all; its leases live 3 s, which can be made longer by hand."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from simulators.vsphere_client import log_in
from simulators.vsphere_server import VSphere, run_vsphere
from simulators.wire import Wire

# The harness of the contract suite beside us.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract.vmware import VmwareHarness

from importers.vmware import bulk, staging
from pipeline.errors import FailbackError, TargetBusy, TargetFull, TargetUnavailable
from pipeline.home.control import Controller
from pipeline.target import Stage

KIB = 1 << 10
LEASE_SECONDS = float(os.environ.get("FAILBACK_TEST_LEASE_SECONDS", "3"))
"""Cuts, and pauses between attempts, are as long as that makes them."""
SHORT, LONG = LEASE_SECONDS / 3, LEASE_SECONDS * 5 / 3
SLOW = 300 * KIB
"""Bytes a second: the upload of a test takes some two seconds, and is disturbed in the middle."""


class Lined(VmwareHarness):
    """With a line to vCenter and one to its host that can be cut."""

    def __init__(self, root: Path, server: VSphere, stack: ExitStack) -> None:
        self.vcenter = stack.enter_context(Wire(f"{server.address}:{server.port}").running())
        self.host = stack.enter_context(Wire(server.host).running())
        super().__init__(root, server)

    def mapping(self) -> dict[str, object]:
        said: Any = super().mapping()
        options = said["options"]["vmware"]
        options["address"] = self.vcenter.address
        options["hosts"][self.server.host.rpartition(":")[0]] = self.host.address
        return {"options": {"vmware": options}}

    def lines(self, do: Callable[[Wire], object]) -> None:
        do(self.vcenter)
        do(self.host)


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VSphere]:
    with run_vsphere(tmp_path_factory.mktemp("vsphere"), lease_timeout=f"{LEASE_SECONDS}s") as running:
        yield running
        assert running.report()["problems"] == []


@pytest.fixture
def server(standin: VSphere) -> Iterator[VSphere]:
    """As new."""
    standin.forget()
    yield standin
    standin.clear_rules()
    standin.set_host(rate=0, reachable=True)


@pytest.fixture
def harness(tmp_path: Path, server: VSphere, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lined]:
    monkeypatch.setattr(staging, "PAUSES", (1.0, LEASE_SECONDS * 2))
    with ExitStack() as stack:
        made = Lined(tmp_path, server, stack)
        yield made
        made.lines(Wire.mend)
        with made.open() as importer:
            importer.remove(made.marker)
        assert made.things() == []


def stage(harness: VmwareHarness, control: Controller | None = None) -> Stage:
    """A command of its own."""
    point, wanted = harness.point(), harness.wanted()
    with harness.open(control) as importer:
        return importer.stage(importer.prepare(point, wanted, harness.marker), point, wanted)


def is_whole(harness: VmwareHarness, done: Stage) -> None:
    """One machine with the point on its two disks, and nothing else."""
    assert harness.equals(done, 1)
    assert [thing.partition(" ")[0] for thing in harness.things()] == ["disk", "disk", "machine"]
    assert [disk.mode for disk in stage(harness).disks] == ["unchanged", "unchanged"]


def nothing_stays(harness: VmwareHarness) -> None:
    """vSphere takes away what it had of a machine when its lease ends."""
    deadline = time.monotonic() + 10
    while harness.things():
        assert time.monotonic() < deadline, harness.things()
        time.sleep(0.05)


def is_clear(error: FailbackError) -> None:
    """It names the machine, or what it was about, and what can be done."""
    assert any(word in error.message for word in ("vm", "127.0.0", "disk")), error.message
    assert error.remedy, error.message


def under_way(server: VSphere, least: int = 100 * KIB) -> None:
    """Returns while a slow upload runs."""
    deadline = time.monotonic() + 30
    while sum(one["received"] for one in server.report()["uploads"].values()) < least:
        assert time.monotonic() < deadline, "nothing is uploaded"
        time.sleep(0.02)


def disturbed(harness: VmwareHarness, disturb: Callable[[], object]) -> Future[Stage]:
    """A command whose upload is slow, and is disturbed in the middle."""
    harness.server.set_host(rate=SLOW)
    pool = ThreadPoolExecutor(1)
    job = pool.submit(stage, harness)
    try:
        under_way(harness.server)
        disturb()
    finally:
        harness.server.set_host(rate=0)
        pool.shutdown(wait=False)
    return job


def test_an_upload_may_last_longer_than_its_lease_lives(harness: Lined, server: VSphere) -> None:
    server.rule("nfc", "delay", at=100 * KIB, milliseconds=int(LONG * 1000))
    is_whole(harness, stage(harness))
    assert server.report()["calls"]["ImportVApp"] == 1


@pytest.mark.parametrize(("seconds", "attempts"), [(SHORT, 1), (LONG, 2)], ids=["short", "long"])
def test_a_line_that_is_silent_for_less_than_the_lease_costs_nothing_and_for_more_the_whole_disks(
    harness: Lined, server: VSphere, seconds: float, attempts: int
) -> None:
    def silent() -> None:
        harness.lines(Wire.hold)
        time.sleep(seconds)
        harness.lines(Wire.mend)

    is_whole(harness, disturbed(harness, silent).result(timeout=120))
    assert server.report()["calls"]["ImportVApp"] == attempts


@pytest.mark.parametrize("seconds", [SHORT, LONG], ids=["short", "long"])
def test_lines_that_are_reset_for_a_while_are_waited_for(harness: Lined, server: VSphere, seconds: float) -> None:
    def reset() -> None:
        harness.lines(Wire.cut)
        time.sleep(seconds)
        harness.lines(Wire.mend)

    is_whole(harness, disturbed(harness, reset).result(timeout=120))


def test_a_lease_that_fails_at_99_percent_is_begun_again(harness: Lined, server: VSphere) -> None:
    server.rule("lease", "fault", at=99, fault="SystemError", text="the host lost the disk")
    server.rule("nfc", "delay", at=100 * KIB, milliseconds=int(LEASE_SECONDS * 500), times=2)
    done = stage(harness)
    assert server.rules()[0]["fired"] == 1, "the lease did not fail"
    assert server.report()["calls"]["ImportVApp"] == 2
    is_whole(harness, done)


def test_a_host_that_turns_uploads_away_is_asked_again_and_told_in_the_end(
    harness: Lined, server: VSphere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PAUSES", (0.1, 0.1))
    server.rule("nfc", "status", status=401, times=6)
    with pytest.raises(TargetUnavailable, match="HTTP 401") as caught:
        stage(harness)
    is_clear(caught.value)
    nothing_stays(harness)
    server.clear_rules()
    server.rule("nfc", "status", status=403)
    is_whole(harness, stage(harness))


def test_vcenter_that_answers_401_for_a_while_in_the_middle_costs_nothing(harness: Lined, server: VSphere) -> None:
    is_whole(
        harness,
        disturbed(harness, lambda: server.rule("HttpNfcLeaseProgress", "status", status=401, times=3)).result(60),
    )
    assert server.report()["calls"]["ImportVApp"] == 1


def test_a_session_that_an_administrator_ends_takes_the_lease_and_a_new_one_brings_it(
    harness: Lined, server: VSphere
) -> None:
    is_whole(harness, disturbed(harness, server.end_sessions).result(60))
    assert server.report()["calls"]["ImportVApp"] == 2


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("HttpNfcLeaseComplete", "NotAuthenticated"),
        ("HttpNfcLeaseComplete", "ManagedObjectNotFound"),
        ("HttpNfcLeaseGetManifest", "NotAuthenticated"),
    ],
)
def test_a_lease_that_is_lost_after_the_last_byte_is_not_taken_for_completed(
    harness: Lined, server: VSphere, method: str, fault: str
) -> None:
    server.rule(method, "fault", fault=fault)
    done = stage(harness)
    assert server.report()["calls"]["ImportVApp"] == 2
    is_whole(harness, done)


def test_a_controller_that_sleeps_for_longer_than_the_lease_begins_again(harness: Lined, server: VSphere) -> None:
    server.set_host(rate=SLOW)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            stage(harness)
            status = 0
        finally:
            os._exit(status)
    under_way(server)
    os.kill(child, signal.SIGSTOP)
    time.sleep(LONG)
    server.set_host(rate=0)
    assert server.report()["leases"] == []
    os.kill(child, signal.SIGCONT)
    _child, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert server.report()["calls"]["ImportVApp"] == 2
    is_whole(harness, stage(harness))


def test_two_hosts_that_import_one_machine_do_not_end_each_others_upload(
    harness: Lined, server: VSphere, tmp_path: Path
) -> None:
    other = copy.copy(harness)
    other.root = tmp_path / "another host"
    other.root.mkdir()
    told: list[str] = []
    waits = threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        waits.set()

    def second() -> Future[Stage]:
        job = ThreadPoolExecutor(1).submit(stage, other, Controller(tell=tell))
        assert waits.wait(30), "it does not wait"
        return job

    late: list[Future[Stage]] = []
    done = disturbed(harness, lambda: late.append(second())).result(60)
    assert harness.equals(done, 1)
    assert server.report()["calls"]["ImportVApp"] == 1
    assert told[0].startswith("another host seems to import vm")
    with pytest.raises(TargetBusy, match="another host, has just imported vm"):
        late[0].result(60)
    done = stage(other)
    assert harness.equals(done, 1)
    assert [thing.partition(" ")[0] for thing in harness.things()] == ["disk", "disk", "machine"]


def test_two_hosts_that_begin_in_the_same_moment_make_one_machine(
    harness: Lined, server: VSphere, tmp_path: Path
) -> None:
    """Both have looked before either has made anything."""
    other = copy.copy(harness)
    other.root = tmp_path / "another host"
    other.root.mkdir()
    server.rule("ImportVApp", "delay", milliseconds=1000, times=2)
    server.set_host(rate=SLOW)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(stage, one) for one in (harness, other)]
        errors = [job.exception(60) for job in jobs]
    assert sorted(type(error).__name__ for error in errors) == ["NoneType", "TargetBusy"]
    assert server.report()["calls"]["ImportVApp"] == 2
    assert server.report()["calls"].get("CancelTask", 0) == 0
    assert [thing.partition(" ")[0] for thing in harness.things()] == ["disk", "disk", "machine"]


def test_a_half_made_machine_that_nobody_completes_is_taken_away_when_its_lease_would_be_over(
    harness: Lined, server: VSphere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it noted it elsewhere, and died before it marked it."""
    monkeypatch.setattr(bulk, "LEASE_SECONDS", 1.5)

    def dies() -> None:
        monkeypatch.setattr(staging, "put_marks", lambda *_all: os._exit(9))
        stage(harness)

    child = os.fork()
    if child == 0:
        dies()
        os._exit(1)
    _child, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    assert [thing.partition(" ")[0] for thing in harness.things()] == ["disk", "disk", "machine"]
    shutil.rmtree(harness.root / "state")
    is_whole(harness, stage(harness))


class Borrowing(Lined):
    """In the session of somebody else."""

    session = ""

    def mapping(self) -> dict[str, object]:
        said: Any = super().mapping()
        if self.session:
            ticket = self.root / "ticket"
            ticket.write_text(self.session)
            said["options"]["vmware"]["ticket"] = {"file": str(ticket)}
        return said


def test_a_session_that_was_borrowed_is_not_ended_when_what_died_in_it_is_taken_away(
    tmp_path: Path, server: VSphere, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = log_in(server)
    with ExitStack() as stack:
        harness = Borrowing(tmp_path, server, stack)
        harness.session = str(theirs.content.sessionManager.currentSession.key)
        child = os.fork()
        if child == 0:
            monkeypatch.setattr(staging, "put_marks", lambda *_all: os._exit(9))
            stage(harness)
            os._exit(1)
        _child, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 9
        harness.session = ""
        is_whole(harness, stage(harness))
        assert theirs.content.sessionManager.currentSession is not None, "it was ended"
        with harness.open() as importer:
            importer.remove(harness.marker)


@pytest.fixture
def small_state(harness: Lined) -> Iterator[Callable[[], Callable[[], None]]]:
    """The folder of our own notes is a file system of its own; called, it is full until what is returned is called."""
    folder = harness.root / "state"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder], capture_output=True, check=False)
    if mount.returncode != 0:
        pytest.skip("mounting needs root")
    ballast = folder / "ballast"

    def fill() -> Callable[[], None]:
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        return ballast.unlink

    try:
        yield fill
    finally:
        ballast.unlink(missing_ok=True)
        with harness.open() as importer:
            importer.remove(harness.marker)
        subprocess.run(["umount", "-l", folder], check=True)


def test_where_nothing_can_be_noted_nothing_is_begun(
    harness: Lined, server: VSphere, small_state: Callable[[], Callable[[], None]]
) -> None:
    free = small_state()
    with pytest.raises(TargetFull, match="state") as caught:
        stage(harness)
    assert caught.value.remedy
    assert "ImportVApp" not in server.report()["calls"]
    free()
    is_whole(harness, stage(harness))


def test_a_lease_that_cannot_be_noted_any_more_is_given_back(
    harness: Lined, server: VSphere, small_state: Callable[[], Callable[[], None]]
) -> None:
    server.rule("ImportVApp", "delay", milliseconds=1000)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(stage, harness)
        while "ImportVApp" not in server.report()["calls"]:
            time.sleep(0.02)
        free = small_state()
        with pytest.raises(TargetFull):
            job.result(60)
    assert server.report()["calls"]["HttpNfcLeaseAbort"] == 1
    nothing_stays(harness)
    free()
    is_whole(harness, stage(harness))


def test_our_own_folder_that_is_full_after_an_upload_leaves_nothing_that_is_trusted(
    harness: Lined, server: VSphere, small_state: Callable[[], Callable[[], None]]
) -> None:
    free: list[Callable[[], None]] = []
    with pytest.raises(TargetFull):
        disturbed(harness, lambda: free.append(small_state())).result(60)
    with harness.open() as importer:
        place = harness.found(importer)
        assert place.stage is not None, "the upload was whole, and is marked so"
        assert importer.check(place.stage), "nothing could be noted of it"
    free[0]()
    is_whole(harness, stage(harness))


def test_a_damaged_chunk_in_the_middle_ends_the_import_and_nothing_counts_as_whole(
    harness: Lined, server: VSphere
) -> None:
    store = harness.bench.repository.store
    largest = max(store.list("packs/"), key=lambda pack: pack.size).key
    sound = bytes(store.get(largest))
    damaged = bytearray(sound)
    damaged[len(damaged) // 2] ^= 1
    store.put(largest, damaged)
    with pytest.raises(FailbackError, match=r"vm|packs/") as caught:
        stage(harness)
    assert caught.value.remedy, caught.value.message
    assert server.report()["calls"]["ImportVApp"] == 1, "what is damaged stays so"
    nothing_stays(harness)
    store.put(largest, sound)
    is_whole(harness, stage(harness))


def failure_of(do: Callable[[], object]) -> FailbackError | None:
    try:
        do()
    except FailbackError as error:
        return error
    return None


def test_a_disk_that_is_locked_is_told_at_every_step_and_the_next_command_goes_on(
    harness: Lined, server: VSphere
) -> None:
    """As by a backup that has it plugged into its own machine."""
    server.rule("lease", "fault", at=0, fault="FileLocked", times=-1)
    server.rule("nfc", "delay", at=100 * KIB, milliseconds=int(LEASE_SECONDS * 500), times=-1)
    with pytest.raises(FailbackError, match="locked") as caught:
        stage(harness)
    is_clear(caught.value)
    server.clear_rules()
    nothing_stays(harness)
    stage(harness)

    def rehearse() -> None:
        """From where an earlier one ended."""
        with harness.open() as importer:
            place = harness.found(importer)
            if place.state == "staged":
                assert place.stage is not None
                importer.build(place, place.stage, harness.wanted().rehearsal(), "rehearsal")
                place = harness.found(importer)
            assert place.build is not None
            if not place.build.booted:
                importer.boot(place.build, place.build.networks)
            importer.stop(place.build, seconds=0)
            importer.finish(harness.found(importer), place.build, keep=False)

    def remove() -> None:
        with harness.open() as importer:
            importer.remove(harness.marker)

    steps = ["CreateSnapshot_Task", "PowerOnVM_Task", "RevertToSnapshot_Task", "RemoveSnapshot_Task"]
    for method in steps:
        server.rule(method, "task-fault", fault="FileLocked")
    server.rule("Destroy_Task", "task-fault", fault="FileLocked")
    failures = [failure_of(rehearse) for _step in [*steps, "well"]] + [failure_of(remove) for _time in range(2)]
    assert [error is not None for error in failures] == [True] * 4 + [False, True, False]
    for error in filter(None, failures):
        assert "locked" in error.message, error.message
        assert "backup" in f"{error.message} {error.remedy}"
        is_clear(error)
    assert harness.things() == []


def test_neither_password_nor_cookie_nor_ticket_is_in_logs_or_messages(
    harness: Lined, server: VSphere, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(staging, "PAUSES", (0.1, 0.1))
    secrets, sessions = {server.password}, set[str]()
    real = bulk.send

    def send(stream: Any, target: Any, connection: Any, *more: Any) -> None:
        secrets.add(urlsplit(target.url).path.split("/")[2])
        sessions.add(connection.cookie().partition("=")[2].strip('"'))
        secrets.update(sessions)
        real(stream, target, connection, *more)

    monkeypatch.setattr(bulk, "send", send)
    server.rule("nfc", "status", status=401, times=4)
    server.rule("nfc", "status", status=400, times=-1)
    told: list[str] = []
    with caplog.at_level(logging.DEBUG), pytest.raises(FailbackError) as caught:
        stage(harness, Controller(tell=told.append))
    server.clear_rules()
    assert len(secrets) >= 5, "not every secret was seen"
    told += [str(caught.value), "".join(traceback.format_exception(caught.value)), caplog.text]
    text = "\n".join(told)
    assert [secret for secret in secrets if secret in text] == []
    [notes] = (harness.root / "state").rglob("notes.json")
    assert [secret for secret in secrets - sessions if secret in notes.read_text()] == []
    assert notes.parent.stat().st_mode & 0o077 == 0, "the session that is to be ended stands there"
