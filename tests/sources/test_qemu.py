"""The source of kind `qemu`: what is its own, with a guest of one boot sector."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from transfer.killing import in_child, kill_at
from transfer.support import Workbench

from importers.qemu import moment, source_findings
from importers.qemu.qmp import Qmp
from importers.qemu.takeover import NOTES, Takeover
from pipeline.errors import SourceBusy, SourceError, SourceUnavailable, Superseded, UsageError
from sources.contract.harness import MACHINE, content
from sources.contract.qemu import QemuHarness


@pytest.fixture(params=["raw", "qcow2"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QemuHarness]:
    with closing(QemuHarness(tmp_path, request.param)) as made:
        yield made


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[QemuHarness]:
    with closing(QemuHarness(tmp_path)) as made:
        yield made


def maps(harness: QemuHarness) -> list[str]:
    with Qmp(harness.folder) as qmp:
        nodes = qmp.execute("query-named-block-nodes", flat=True)
    # A backup job has one without a name.
    return sorted(m["name"] for node in nodes for m in node.get("dirty-bitmaps", []) if m.get("name"))


def test_what_a_reading_left_that_was_killed_is_taken_away(harness: QemuHarness, tmp_path: Path) -> None:
    bench = Workbench(tmp_path / "bench")
    harness.export(bench)
    parent = bench.point(machine=MACHINE)
    [began] = maps(harness)
    for nth in (1, -1, 2, -2):

        def doomed(nth: int = nth) -> None:
            kill_at(pytest.MonkeyPatch(), [(moment, "take"), (moment, "serve")], nth)
            harness.read(parent=parent)

        assert in_child(doomed)
        assert harness.works(), "a reading that died holds nobody up"
    assert len(maps(harness)) > 1
    result = harness.export(bench, parent=parent)
    assert result.disks[0].mode == "changed blocks"
    assert maps(harness) == list(bench.point(machine=MACHINE).manifest.disks[0].change_maps) != [began]
    assert list(harness.folder.glob("failback-moment*")) == []
    with Qmp(harness.folder) as qmp:
        assert qmp.execute("query-block-jobs") == []
        nodes = [str(node["node-name"]) for node in qmp.execute("query-named-block-nodes", flat=True)]
        assert [name for name in nodes if name.startswith("failback")] == []


def test_a_reading_that_fails_costs_the_next_one_nothing(harness: QemuHarness, tmp_path: Path) -> None:
    bench = Workbench(tmp_path / "bench")
    harness.export(bench)
    parent = bench.point(machine=MACHINE)
    harness.read(parent=parent)
    assert harness.works()
    assert harness.export(bench, parent=parent).disks[0].mode == "changed blocks"


def test_a_qcow2_image_keeps_its_change_map_through_a_stop(tmp_path: Path) -> None:
    bench = Workbench(tmp_path / "bench")
    with closing(QemuHarness(tmp_path, "qcow2")) as harness:
        harness.export(bench)
        for verb in ("stop", "resume"):
            harness.do(verb)
        assert harness.works()
        parent = bench.point(machine=MACHINE)
        assert harness.export(bench, parent=parent).disks[0].mode == "changed blocks"
        harness.do("quiesce")
        result = harness.export(bench, parent=bench.point(machine=MACHINE), final=True)
        assert result.disks[0].mode == "changed blocks"
        [restored] = bench.restore(machine=MACHINE)
        assert Path(restored.target).read_bytes() == harness.read(final=True)[0]


def test_a_machine_is_stopped_and_read_again_though_somebody_reads_it(harness: QemuHarness) -> None:
    """What is noted of its disks are they, and not what a reading puts before them."""

    def doomed() -> None:
        kill_at(pytest.MonkeyPatch(), [(moment, "serve")], -1)
        harness.read()

    assert in_child(doomed)
    for verb in ("quiesce", "stop", "prove_stopped", "lock"):
        harness.do(verb)
    [disk] = harness.read(final=True)
    assert harness.written(disk) >= harness.acknowledged()
    assert list(harness.folder.glob("failback-moment*")) == []


def test_one_reads_at_a_time(raw: QemuHarness) -> None:
    with (
        raw.open() as first,
        first.reading(MACHINE, raw.settings(), parent=None, final=False),
        pytest.raises(SourceBusy, match="reads the disks of vm"),
    ):
        raw.read()


def test_a_moment_stays_that_moment_while_the_guest_writes(raw: QemuHarness) -> None:
    with raw.open() as found, found.reading(MACHINE, raw.settings(), parent=None, final=False) as reading:
        first = raw.written(content(reading, 0))
        assert raw.works()
        assert raw.acknowledged() > first
        assert raw.written(content(reading, 0)) == first


def test_a_machine_may_have_a_folder_with_a_long_path(tmp_path: Path) -> None:
    with closing(QemuHarness(tmp_path / ("long" * 30))) as harness:
        assert harness.written(harness.read()[0]) >= 1


@contextmanager
def held(disk: Path, image_format: str) -> Iterator[None]:
    """Somebody else has it open to write."""
    process = subprocess.Popen(
        ["qemu-io", "-f", image_format, str(disk)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write("length\n")
        process.stdin.flush()
        process.stdout.readline()
        yield
    finally:
        process.communicate("quit\n")


def test_a_disk_that_somebody_holds_is_no_proof(raw: QemuHarness) -> None:
    for verb in ("quiesce", "stop"):
        raw.do(verb)
    with held(raw.disk, "raw"):
        state = raw.seen()
        assert state.power == "unknown"
        assert "is in use" in state.detail
        for verb in ("prove_stopped", "lock", "retire"):
            with pytest.raises(SourceError):
                raw.do(verb)
        with pytest.raises(SourceUnavailable, match="is in use"):
            raw.do("resume")
        with pytest.raises(SourceUnavailable, match="is in use"):
            raw.do("stop")
    raw.do("prove_stopped")
    raw.do("resume")
    assert raw.works()


def test_a_machine_that_was_never_seen_is_not_known_to_be_off(raw: QemuHarness) -> None:
    with Qmp(raw.folder) as qmp:
        qmp.execute("quit")
    raw._until_gone()
    with pytest.raises(SourceUnavailable, match="no proof"):
        raw.seen()


def test_notes_that_cannot_be_read_stop_everything(raw: QemuHarness) -> None:
    raw.do("quiesce")
    (raw.folder / NOTES).write_text("{")
    things = raw.things()
    for verb in ("quiesce", "stop", "lock", "resume"):
        with pytest.raises(SourceError, match="cannot be read"):
            raw.do(verb)
    assert raw.things() == things


def test_a_machine_that_a_person_goes_on_with_is_not_quiesced(raw: QemuHarness) -> None:
    raw.do("quiesce")
    with Qmp(raw.folder) as qmp:
        qmp.execute("cont")
    state = raw.seen()
    assert (state.power, state.quiesced) == ("on", False)
    with pytest.raises(SourceError):
        raw.read(final=True)


def test_a_conductor_that_slept_through_a_way_back_ends_nothing(raw: QemuHarness) -> None:
    """It was told to stop the machine gracefully, and sleeps while it waits for that."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            raw.do("stop", 1, seconds=8.0)
        except Superseded:
            status = 77
        finally:
            os._exit(status)
    takeover = Takeover(MACHINE, raw.folder)
    end = time.monotonic() + 30
    while not takeover.get("source-touched"):
        assert time.monotonic() < end
        time.sleep(0.05)
    time.sleep(3.0)  # it is past its turn, and the next one comes after ten seconds or at the end
    os.kill(child, signal.SIGSTOP)
    raw.do("resume", 2)
    time.sleep(6.0)
    os.kill(child, signal.SIGCONT)
    _pid, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 77
    assert raw.works()


def test_a_machine_is_started_by_the_program_that_is_given(raw: QemuHarness) -> None:
    for verb in ("quiesce", "stop"):
        raw.do(verb)
    words = json.loads(json.loads((raw.folder / NOTES).read_text())["run"])["arguments"]
    (raw.folder / "start").write_text(
        '#!/bin/sh\ncd $(dirname $0)\necho $FAILBACK_EPOCH >started\nexec setsid -f "$@"\n'
    )
    (raw.folder / "start").chmod(0o755)
    given = {**raw.settings(), "start": [str(raw.folder / "start"), *words]}
    with raw.open() as found:
        found.resume(MACHINE, given, epoch=4)
    assert (raw.folder / "started").read_text() == "4\n"
    assert raw.works()


def test_preflight_says_what_is_missing(raw: QemuHarness) -> None:
    with raw.open() as found:
        findings = {f.subject: f for f in found.preflight(MACHINE, {**raw.settings(), "quiesce": ["true"]})}
        assert (findings["agent"].severity, findings["unquiesce"].severity) == ("error", "error")
        assert all(f.remedy for f in findings.values() if f.severity != "note")
        [gone] = found.preflight(MACHINE, {"folder": str(raw.root)})
        assert gone.severity == "error"
        [wrong] = found.preflight(MACHINE, {**raw.settings(), "disks": ["disk7"]})
        assert "disk7" in wrong.message
        with pytest.raises(UsageError, match="folder"):
            found.observe(MACHINE, {})


def test_what_a_new_process_would_not_have_is_seen_in_a_command_line() -> None:
    for word in ("tap,id=n,fd=27", "tap,fds=3:4", "/dev/fdset/1", "socket,id=c,fd=9", "file=/dev/fd/3"):
        assert source_findings._INHERITED.search(word), word
    for word in ("tap,id=n,ifname=tap0", "file=/dev/fd0", "if=none,id=fd,file=disk"):
        assert not source_findings._INHERITED.search(word), word
