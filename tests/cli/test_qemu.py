"""Machines on a real QEMU, from the command line: killed anywhere, wrong in any way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.conftest import COMMAND, Run
from importers.qemu import preflight
from pipeline.cli import exitcodes

READY = "console:sector ready"


def guest(path: Path, kind: str) -> Path:
    """A disk of one boot sector (tests/simulators/guests.py)."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "importers"))
    try:
        from simulators.guests import make_guest
    finally:
        sys.path.pop(0)
    return make_guest(path, kind)  # type: ignore[arg-type]


def processes(state: Path) -> list[int]:
    """Of QEMU and of servers, that work below `state`."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            words = (link.parent / "cmdline").read_bytes()
            if link.resolve(strict=True).is_relative_to(state) and (b"qemu-system" in words or b"\0serve\0" in words):
                found.append(int(link.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture
def bring(repository: Path, tmp_path: Path, failback: Run) -> Iterator[Callable[..., list[object]]]:
    """Exports a machine that boots; the arguments of `failback import vm --to qemu` with its mapping."""

    def exported(kind: str = "idles", options: str = "") -> list[object]:
        disk = guest(tmp_path / "guest.raw", kind)
        hardware = ("--memory", "64M", "--nic", "network=old")
        assert failback("export", "vm", "--disk", disk, *hardware).code == 0
        (tmp_path / "map.yaml").write_text(
            f"""
networks: {{"*": {{isolated: true}}}}
disks: {{0: {{bus: sata}}}}
options: {{qemu: {{accelerator: tcg, {options}}}}}
"""
        )
        return ["import", "vm", "--to", "qemu", "--map", tmp_path / "map.yaml"]

    yield exported
    for number in processes(tmp_path / "state"):
        os.kill(number, signal.SIGKILL)


def test_one_command_ends_with_a_machine_that_runs_and_one_with_one_that_is_off(
    bring: Callable[..., list[object]], failback: Run, tmp_path: Path
) -> None:
    picture = tmp_path / "console.png"
    done = failback(*bring(), "--hook", READY, "--picture", picture)
    assert done.code == 0, done.out + done.err
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(processes(tmp_path / "state")) == 1
    assert "vm runs at qemu" in failback(*bring_again(tmp_path)).out, "without checks it is not switched on, nor off"
    assert failback(*bring_again(tmp_path), "--hook", READY).code == 0
    assert len(processes(tmp_path / "state")) == 1
    done = failback("stop", "vm", "--to", "qemu", "--seconds", "0", "--drop")
    assert done.code == 0, done.out + done.err
    assert processes(tmp_path / "state") == []


def bring_again(tmp_path: Path) -> list[object]:
    return ["import", "vm", "--to", "qemu", "--map", tmp_path / "map.yaml"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [("says nothing", "console is empty"), ("halts", "shut down"), ("resets", "keeps resetting")],
)
def test_a_guest_that_does_not_work_fails_its_checks_and_leaves_nothing(
    bring: Callable[..., list[object]], failback: Run, tmp_path: Path, kind: str, said: str
) -> None:
    bring(kind)
    text = "login:" if kind == "resets" else "sector ready"
    checks = tmp_path / "checks.yaml"
    checks.write_text(f'checks: [{{name: up, hook: console, settings: {{text: "{text}"}}, within: 5s}}]\n')
    done = failback("verify", "vm", "--boot", "--to", "qemu", "--map", tmp_path / "map.yaml", "--checks", checks)
    assert done.code == exitcodes.NOT_VERIFIED == 12
    assert said in done.out + done.err
    assert processes(tmp_path / "state") == []
    assert list((tmp_path / "state" / "targets" / "qemu").iterdir()) == []


def test_what_is_wrong_is_said_before_anything_is_made(
    bring: Callable[..., list[object]], failback: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = bring()
    monkeypatch.setattr(preflight, "find_flash", lambda *_args, **_more: None)
    (tmp_path / "uefi.yaml").write_text("firmware: uefi\nmemory: 512MiB\nnetworks: {'*': null}\n")
    done = failback(*arguments[:-1], tmp_path / "uefi.yaml")
    assert done.code == 11
    assert "apt-get install -y ovmf" in done.out + done.err
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = failback(*bring(options=f"forwards: {{{port}: 80}}"), "--boot")
        assert done.code == 11
        assert f"port {port} of this host is already in use" in done.out + done.err
    monkeypatch.setenv("PATH", "/nowhere")
    done = failback(*arguments)
    assert done.code == 11
    assert "apt-get install -y qemu-system-x86" in done.out + done.err
    assert not (tmp_path / "state" / "targets" / "qemu").exists()


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_with_one_machine_and_clean_removes_the_rest(
    bring: Callable[..., list[object]], failback: Run, tmp_path: Path
) -> None:
    arguments = [str(argument) for argument in bring()]
    state = tmp_path / "state"
    whole = run_whole([*arguments, "--hook", READY])
    assert len(processes(state)) == 1
    assert failback("clean", "vm", "--to", "qemu", "--all").code != 0, "it runs for production"
    assert failback("stop", "vm", "--to", "qemu", "--seconds", "0").code == 0
    steps = 12
    for step in range(steps):
        assert failback("clean", "vm", "--to", "qemu", "--all").code == 0
        assert processes(state) == []
        doomed = subprocess.Popen([*COMMAND, *arguments, "--hook", READY], stdout=subprocess.DEVNULL)
        try:
            doomed.wait(whole * (step + 1) / steps)
        except subprocess.TimeoutExpired:
            doomed.kill()
        doomed.wait()
        run_whole([*arguments, "--hook", READY])
        assert len(processes(state)) == 1, f"killed after {step + 1} of {steps} parts"
        assert len(list((state / "targets" / "qemu").glob("*/stage/disk*.raw"))) == 1
        assert failback("stop", "vm", "--to", "qemu", "--seconds", "0").code == 0
        assert processes(state) == []


def run_whole(arguments: list[str]) -> float:
    started = time.monotonic()
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - started


@pytest.mark.slow
def test_a_verification_that_is_killed_leaves_nothing_once_cleaned(
    bring: Callable[..., list[object]], failback: Run, tmp_path: Path
) -> None:
    bring()
    state = tmp_path / "state"
    arguments = [
        "verify",
        "vm",
        "--boot",
        "--to",
        "qemu",
        "--map",
        str(tmp_path / "map.yaml"),
        "--hook",
        "console:never",
    ]
    doomed = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not processes(state):
        assert time.monotonic() < end
        assert doomed.poll() is None
        time.sleep(0.05)
    doomed.kill()
    doomed.wait()
    assert len(processes(state)) == 1, "it outlives its command"
    assert failback("clean").code == 0
    assert processes(state) == []
    assert list((state / "targets" / "qemu").iterdir()) == []


def test_instant_it_runs_from_the_repository_and_moves_to_its_disks(
    bring: Callable[..., list[object]], failback: Run, tmp_path: Path
) -> None:
    arguments = bring("writes")
    state = tmp_path / "state"
    done = failback(*arguments, "--instant", "--hook", READY)
    assert done.code == 0, done.out + done.err
    assert len(processes(state)) == 2, "QEMU and the disk's server"
    done = failback("stop", "vm", "--to", "qemu", "--seconds", "0", "--keep")
    assert done.code == 0, done.out + done.err
    assert processes(state) == []
    [disk] = (state / "targets" / "qemu").glob("*/stage/disk0.raw")
    assert disk.read_bytes()[1024:1536] == disk.read_bytes()[:512], "what the guest wrote"


def test_a_dry_run_beside_the_machine_that_runs_says_that_it_is_there(
    bring: Callable[..., list[object]], failback: Run
) -> None:
    arguments = bring()
    done = failback(*arguments, "--hook", READY, "--json")
    assert done.code == 0, done.out + done.err
    [disk] = done.result["disks"]
    assert 0 < disk["seconds"] < done.result["seconds"] - done.result["checks"]["seconds"]
    dry = failback(*arguments, "--dry-run")
    assert dry.code == 0, dry.out + dry.err
    assert "vm@1 is on the disks at qemu already" in dry.out
    assert "KVM: no KVM" not in dry.out
