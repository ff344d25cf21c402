"""Machines that go wrong, on a real QEMU: what happened is seen, nothing is left running, nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import cast

import pytest
from simulators.guests import READY, WRITTEN, boot_sector, make_guest
from transfer.killing import in_child, kill_at
from transfer.support import poke

from importers.qemu import firmware, folder, power
from importers.qemu.arguments import QMP_SOCKET
from importers.qemu.definition import load
from importers.qemu.events import EVENTS_FILE
from importers.qemu.forward import accepted
from importers.qemu.process import running
from importers.qemu.qmp import Qmp, QmpGone
from pipeline.errors import BootError, Cancelled, TargetBusy, TargetError, TargetMismatch, Unsupported
from pipeline.home.control import Controller
from pipeline.target import Build
from qemu.bench import Bench, until


@pytest.fixture
def idle(tmp_path: Path) -> Bench:
    return Bench.of_sector(tmp_path, "idles")


def process_of(bench: Bench) -> int:
    with running(bench.folder, str(bench.marker)) as process:
        assert process is not None
        return process.number


def processes(bench: Bench) -> list[int]:
    """All that have this machine's UUID."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(bench.marker).encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_machine_boots_and_is_seen(idle: Bench) -> None:
    importer = idle.importer()
    with idle.running() as build:
        seen = until(importer, build, lambda now: READY in now.console)
        assert (seen.power, seen.heartbeat, seen.reason) == ("on", None, "")
        assert (importer.picture(build) or b"").startswith(b"\x89PNG")
        with pytest.raises(Unsupported, match="no guest agent"):
            importer.command(build, ["true"], seconds=1)
        seen = importer.stop(build, seconds=0.5)
        assert (seen.power, seen.reason) == (
            "off",
            "the guest did not shut down within 0.5 s and was switched off hard",
        )
        assert importer.observe(build).reason == "it was switched off"
    assert processes(idle) == []


def test_a_guest_that_halts_at_once_is_off_and_says_why(tmp_path: Path) -> None:
    bench = Bench.of_sector(tmp_path, "halts")
    with bench.running() as build:
        seen = until(bench.importer(), build, lambda now: now.power == "off")
        assert seen.reason == "the guest shut down"
        assert READY in seen.console


def test_a_guest_that_resets_for_ever_is_told_from_one_that_runs(tmp_path: Path) -> None:
    bench = Bench.of_sector(tmp_path, "resets")
    with bench.running() as build:
        seen = until(bench.importer(), build, lambda now: bool(now.reason))
        assert seen.power == "on"
        assert seen.reason.startswith("it keeps resetting: ")


def test_a_guest_that_never_boots_is_on_and_its_console_and_picture_show_the_firmware(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(bytes(1 << 20))
    bench = Bench(tmp_path, tmp_path / "empty")
    with bench.running() as build:
        seen = bench.importer().observe(build)
        assert (seen.power, seen.heartbeat, seen.console) == ("on", None, "")
        assert bench.importer().picture(build)


def test_a_guest_that_panics_is_paused_and_says_so(idle: Bench) -> None:
    """The panic is reported the way a guest does: by the pvpanic port (qemu/docs/specs/pvpanic.rst)."""
    with idle.running() as build:
        importer = idle.importer()
        until(importer, build, lambda now: READY in now.console)
        with Qmp(idle.folder) as qmp:
            qmp.monitor("o /b 0x505 1")
        seen = until(importer, build, lambda now: now.power != "on")
        assert (seen.power, seen.reason) == ("paused", "the guest panicked")
        assert importer.stop(build, seconds=30).power == "off", "a paused guest is not waited for"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, "QEMU is gone without a word: killed, crashed, or this host went down"),
        (signal.SIGTERM, "QEMU was ended by a signal from outside"),
    ],
)
def test_a_qemu_that_is_killed_from_outside_is_off_and_starts_again(
    idle: Bench, number: signal.Signals, reason: str
) -> None:
    importer = idle.importer()
    with idle.running() as build:
        until(importer, build, lambda now: READY in now.console)
        os.kill(process_of(idle), number)
        seen = until(importer, build, lambda now: now.power == "off")
        assert seen.reason.startswith(reason)
        assert idle.place.state == "layered"
        assert importer.stop(build).power == "off"
        idle.boot(build)
        until(importer, build, lambda now: now.power == "on" and READY in now.console)


def test_what_the_guest_wrote_survives_a_hard_stop_and_is_kept(tmp_path: Path) -> None:
    bench = Bench.of_sector(tmp_path, "writes", disks={0: {"bus": "sata"}})
    importer = bench.importer()
    with bench.running() as build:
        until(importer, build, lambda now: READY in now.console)
        importer.stop(build, seconds=0)
        disk = bench.folder.parent / "stage" / "disk0.raw"
        assert disk.read_bytes()[WRITTEN:][:512] == bytes(512), "the stage is written"
        stage = importer.finish(bench.place, build, keep=True)
        assert disk.read_bytes()[WRITTEN:][:512] == boot_sector("writes")
        assert importer.check(stage) == "what the machine wrote was merged into the disks"
        assert bench.place.state == "kept"
        idle = bench.boot(build)
        until(importer, idle, lambda now: READY in now.console)
        assert bench.place.state == "running"


def test_started_by_hand_it_is_found_adopted_and_stopped(idle: Bench) -> None:
    build = idle.build()
    hand = subprocess.Popen([idle.folder / "start.sh"], cwd="/", start_new_session=True)
    try:
        seen = until(idle.importer(), build, lambda now: READY in now.console)
        assert seen.power == "on"
        assert idle.boot(build).booted
        assert processes(idle) == [hand.pid]
        assert idle.place.state == "running"
        assert idle.importer().stop(build, seconds=0).power == "off"
        assert hand.wait() == 0
    finally:
        hand.kill()
        hand.wait()


def test_what_an_earlier_start_said_is_not_taken_for_what_one_by_hand_says(idle: Bench) -> None:
    with idle.running() as build:
        importer = idle.importer()
        until(importer, build, lambda now: READY in now.console)
        importer.stop(build, seconds=0)
        [disk] = idle.out.glob("*/build-production/disk0.qcow2")
        subprocess.run(["qemu-io", "-c", "write -z 0 512", disk], check=True, capture_output=True)  # it boots no more
        hand = subprocess.Popen([idle.folder / "start.sh"], cwd="/", start_new_session=True)
        try:
            seen = until(importer, build, lambda now: now.power == "on")
            assert READY not in seen.console
            again = subprocess.run([idle.folder / "start.sh"], cwd="/", capture_output=True, text=True, check=False)
            assert again.returncode != 0
            assert importer.observe(build).console == seen.console, "a start that fails leaves the one that runs alone"
            importer.stop(build, seconds=0)
        finally:
            hand.kill()
            hand.wait()


def test_started_many_times_at_once_it_runs_once(idle: Bench) -> None:
    build = idle.build()
    errors: list[Exception] = []

    def start() -> None:
        try:
            idle.boot(build)
        except TargetBusy as error:  # the place is another's for the moment
            errors.append(error)

    try:
        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(errors) < 4
        assert len(processes(idle)) == 1
    finally:
        idle.importer().remove(idle.marker)
    assert processes(idle) == []


@pytest.mark.parametrize("nth", [1, -1])
def test_killed_around_the_start_the_machine_is_started_once(idle: Bench, nth: int) -> None:
    build = idle.build()

    def boot() -> None:
        kill_at(pytest.MonkeyPatch(), [(power, "_spawn")], nth)
        idle.boot(build)

    try:
        assert in_child(boot)
        idle.boot(build)
        until(idle.importer(), build, lambda now: READY in now.console)
        assert len(processes(idle)) == 1
    finally:
        idle.importer().remove(idle.marker)
    assert processes(idle) == []


def test_a_start_that_is_cancelled_leaves_a_machine_that_the_next_call_finds(idle: Bench) -> None:
    build = idle.build()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(power, "Qmp", _never)
        control = Controller()
        control.cancel()
        with pytest.raises(Cancelled):
            power.switch_on(idle.folder, load(idle.folder), control)  # type: ignore[arg-type]
    try:
        assert idle.boot(build).booted
        assert len(processes(idle)) == 1
    finally:
        idle.importer().remove(idle.marker)
    assert processes(idle) == []


def _never(*_args: object, **_more: object) -> None:
    raise QmpGone("QEMU does not answer")


def test_a_port_that_is_in_use_is_named(idle: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        options = {"qemu": {"accelerator": "tcg", "forwards": {str(port): 80}}}
        build = idle.build(options=options)
        with pytest.raises(BootError, match=str(port)) as caught:
            idle.boot(build, options=options)
        assert "already in use" in caught.value.remedy
    assert processes(idle) == []
    try:
        assert idle.importer().observe(idle.boot(build, options=options)).power == "on"
    finally:
        idle.importer().remove(idle.marker)


def test_ports_of_an_isolated_guest_are_reached_and_what_it_takes_is_told(idle: Bench) -> None:
    with idle.running("rehearsal") as build:
        importer = idle.importer()
        first = importer.reach(build, 80)
        assert first is not None
        assert first.relayed
        assert importer.reach(build, 80) == first
        assert importer.reach(build, 81) != first
        assert importer.accepted(build, 80) is None, "no connection is open"
        with socket.create_connection((first.host, first.port)):
            assert importer.accepted(build, 80) is False, "this guest has no network"
        importer.stop(build, seconds=0)
        assert importer.reach(build, 80) is None


def test_a_connection_of_the_guests_own_is_not_taken_for_one_that_it_accepted() -> None:
    class Monitor:
        def monitor(self, _line: str) -> str:
            return (
                "Hub 0 (#net0):\n"
                "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n"
                "  TCP[SYN_SENT]      14       127.0.0.1 40001       10.0.2.15   443     0     0\n"
                "  TCP[ESTABLISHED]   15       10.0.2.15 51234    203.0.113.10   443     0     0\n"
                "  TCP[HOST_FORWARD]  12       127.0.0.1 40001       10.0.2.15   443     0     0\n"
            )

    assert accepted(cast(Qmp, Monitor()), 443) is False


def test_a_guest_without_adapter_is_not_reached(idle: Bench) -> None:
    with idle.running(networks={"*": None}) as build:
        assert idle.importer().reach(build, 80) is None


def test_an_unknown_network_is_refused_at_the_start(idle: Bench) -> None:
    build = idle.build()
    with pytest.raises(TargetError, match="'lan'"):
        idle.boot(build, networks={"*": "lan"})
    assert processes(idle) == []


def test_a_stage_that_was_changed_by_hand_is_not_built_on(idle: Bench) -> None:
    place = idle.stage()
    [disk] = idle.out.glob("*/stage/disk0.raw")
    poke(disk, 4096, b"by hand")
    assert place.stage is not None
    importer = idle.importer()
    assert "somebody wrote" in importer.check(place.stage)
    with pytest.raises(TargetMismatch, match="somebody wrote"):
        importer.build(place, place.stage, idle.wanted(), "production")
    assert idle.build().name == "vm", "the import hashes it again and mends it"
    assert disk.read_bytes()[4096:4103] == bytes(7)


def test_a_disk_that_is_gone_is_missed_and_made_again(idle: Bench) -> None:
    place = idle.stage()
    [disk] = idle.out.glob("*/stage/disk0.raw")
    disk.unlink()
    assert place.stage is not None
    assert "is gone" in idle.importer().check(place.stage)
    assert idle.build().name == "vm"


def test_without_ovmf_no_machine_with_uefi_is_built(idle: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firmware, "DESCRIPTIONS", ())
    monkeypatch.setattr(firmware, "KNOWN", ())
    with pytest.raises(TargetError, match="OVMF"):
        idle.build(firmware="uefi")
    assert idle.place.state == "staged"


def test_without_qemu_nothing_is_started(idle: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    build = idle.build()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TargetError, match="not installed"):
        idle.boot(build)


def test_a_disk_that_another_program_uses_is_named(idle: Bench, tmp_path: Path) -> None:
    build = idle.build()
    options = f"driver=qcow2,node-name=d,file.driver=file,file.filename={idle.folder}/disk0.qcow2"
    other = subprocess.Popen(
        [
            *("qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-blockdev", options),
            *("-chardev", f"socket,id=qmp,path={QMP_SOCKET},server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        ],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 30
        while not _answers(tmp_path):
            assert time.monotonic() < end
        with pytest.raises(TargetBusy, match="used by another program"):
            idle.boot(build)
    finally:
        other.kill()
        other.wait()


def _answers(where: Path) -> bool:
    try:
        with Qmp(where):
            return True
    except QmpGone:
        return False


def test_a_place_that_another_command_works_on_is_busy(idle: Bench) -> None:
    build = idle.build()
    [path] = idle.out.glob("*")
    with folder.Folder(path, idle.marker).locked():
        for verb in (lambda: idle.boot(build), idle.stage, lambda: idle.importer().remove(idle.marker)):
            with pytest.raises(TargetBusy, match="another command"):
                verb()


def test_a_machine_that_was_switched_on_once_is_known_to_have_been_whatever_happens_to_the_start(idle: Bench) -> None:
    build = idle.build()
    assert build.booted is False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(power.subprocess, "run", lambda *_args, **_more: None)
        with pytest.raises(BootError):
            idle.boot(build)
    assert (idle.folder / EVENTS_FILE).exists()
    assert idle.place.build is not None
    assert idle.place.build.booted is True


def test_removing_follows_no_link_and_touches_no_other_process(idle: Bench, tmp_path: Path) -> None:
    build = idle.build()
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "gold").touch()
    (idle.folder / "link").symlink_to(treasure)
    # It has our UUID, but works elsewhere.
    foreign = subprocess.Popen(["sh", "-c", "sleep 60; :", "-uuid", str(idle.marker)], cwd=tmp_path)
    try:
        assert idle.importer().observe(build).power == "off"
        assert idle.importer().remove(idle.marker)
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()
    assert (treasure / "gold").exists()
    assert list(idle.out.iterdir()) == []


def test_a_place_can_be_moved(idle: Bench, tmp_path: Path) -> None:
    """All that a machine's files say of each other is relative."""
    idle.build()
    shutil.move(idle.out, tmp_path / "elsewhere")
    idle.out = tmp_path / "elsewhere"
    build = idle.place.build
    assert isinstance(build, Build)
    try:
        idle.boot(build)
        until(idle.importer(), build, lambda now: READY in now.console)
    finally:
        idle.importer().remove(idle.marker)


def test_a_damaged_definition_is_named_and_can_be_removed(idle: Bench) -> None:
    idle.build()
    (idle.folder / "machine.json").write_text("{}")
    with pytest.raises(TargetMismatch, match="cannot be read"):
        idle.importer().find(idle.marker)
    assert idle.importer().remove(idle.marker)


def test_two_disks_one_of_them_small_and_odd(tmp_path: Path) -> None:
    """QEMU's disks are whole sectors; what is behind the end of ours reads as zeros."""
    guest = make_guest(tmp_path / "0", "idles")
    (tmp_path / "1").write_bytes(b"x" * 1000)
    bench = Bench(tmp_path, guest, tmp_path / "1")
    with bench.running() as build:
        until(bench.importer(), build, lambda now: READY in now.console)


def test_a_machine_whose_disks_are_gone_does_not_start_and_says_why(idle: Bench) -> None:
    build = idle.build()
    shutil.move(idle.folder.parent / "stage", idle.folder.parent / "gone")
    with pytest.raises(BootError, match="No such file"):
        idle.boot(build)
    assert idle.importer().observe(build).power == "off"


def test_control_is_asked_while_a_guest_takes_its_time_to_shut_down(idle: Bench) -> None:
    with idle.running() as build:
        importer = idle.importer()
        control = importer._context.control
        assert isinstance(control, Controller)
        threading.Timer(0.5, control.cancel).start()
        with pytest.raises(Cancelled):
            importer.stop(build, seconds=60)
        assert idle.place.state == "running"
