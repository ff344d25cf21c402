"""A guest boots, serves, keeps its journal through a crash, and goes down by the power button."""

from __future__ import annotations

import subprocess
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.boot.command import run as run_tool
from scripts.guest import GuestDisks

from .machine import Machine, run

Build = Callable[..., GuestDisks]

pytestmark = pytest.mark.slow


def ssh(machine: Machine, guest: GuestDisks, folder: Path, command: str) -> str:
    """What a command in the guest prints; the guest has to show the host key that was built in."""
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{machine.ssh_port} {guest.ssh_host_key.read_text()}")
    options = ["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={known}"]
    login = ["-i", str(guest.ssh_key), "-p", str(machine.ssh_port), "root@127.0.0.1"]
    return subprocess.run(["ssh", *options, *login, command], capture_output=True, text=True, check=True).stdout


def test_a_bios_guest_serves_and_survives_a_crash(build: Build, tmp_path: Path) -> None:
    guest = build(firmware="bios", disks=("system", "data"), name="web-1")
    with run(guest, tmp_path, ["virtio-blk", "virtio-blk"]) as machine:
        machine.wait_for("failback-guest ready: web-1 boot 1")
        page = machine.page()
        assert page["name"] == "web-1"
        assert page["boot"] == "1"
        assert page["data disk"] == "mounted"
        assert page["journal at boot"] == "0 records, intact"
        ssh(machine, guest, tmp_path, "echo changed > /etc/failback-guest/status; sync")
        page = machine.page()
        assert page["status"] == "changed"
        flushed = int(page["journal now"])
        assert flushed > 0
        assert machine.agent("guest-ping") == {}
        # Root and data disk; nothing is written until they are thawed.
        assert machine.agent("guest-fsfreeze-freeze") == 2
        frozen = machine.page()["journal now"]
        assert machine.page()["journal now"] == frozen
        assert machine.agent("guest-fsfreeze-thaw") == 2
        # The end of the context kills QEMU: a power cut.
    with run(guest, tmp_path, ["virtio-blk", "virtio-blk"]) as machine:
        machine.wait_for("failback-guest ready: web-1 boot 2")
        page = machine.page()
        assert page["status"] == "changed"
        records, _, verdict = page["journal at boot"].partition(" records, ")
        assert verdict == "intact"
        assert int(records) >= max(flushed, int(frozen))
        machine.qmp("system_powerdown")
        assert machine.wait_end() == 0
        assert "failback-guest stopped: web-1" in machine.console
    run_tool("e2fsck", "-fn", f"{guest.disks[0]}?offset={49 << 20}")
    run_tool("e2fsck", "-fn", f"{guest.disks[1]}?offset={1 << 20}")


def test_a_uefi_guest_finds_its_root_behind_a_loader_disk(build: Build, tmp_path: Path) -> None:
    guest = build(firmware="uefi", disks=("loader", "root", "data"), name="db-1")
    with run(guest, tmp_path, ["sata", "pvscsi", "pvscsi"]) as machine:
        machine.wait_for("failback-guest ready: db-1 boot 1")
        assert machine.page()["journal at boot"] == "0 records, intact"
        assert machine.page()["data disk"] == "mounted"
        picture = machine.picture(tmp_path / "screen.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        process = machine.agent("guest-exec", path="/bin/hostname", **{"capture-output": True})["pid"]
        assert isinstance(process, int)
        machine.agent_sends("guest-shutdown")
        assert machine.wait_end() == 0
        assert "failback-guest stopped: db-1" in machine.console
    run_tool("e2fsck", "-fn", f"{guest.disks[1]}?offset={1 << 20}")
    run_tool("e2fsck", "-fn", f"{guest.disks[2]}?offset={1 << 20}")


def records(*chains: int) -> str:
    """A journal with these chains; each record was written as the machine started."""
    return "".join(f"{number:10d} {0:13.2f} {chain:10d} {'.' * 27}\n" for number, chain in enumerate(chains, 1))


def chained(count: int) -> list[int]:
    """The chains of that many records, all right."""
    found = [0]
    for number in range(1, count + 1):
        found.append((found[-1] * 69069 + number) % (1 << 32))
    return found[1:]


def replace_journal(disk: Path, offset: int, path: str, content: bytes, folder: Path) -> None:
    """Put a journal into an ext4 that is not mounted."""
    (folder / "journal").write_bytes(content)
    place = f"{disk}?offset={offset}"
    run_tool("debugfs", "-w", "-R", f"rm {path}", place)
    run_tool("debugfs", "-w", "-R", f"write {folder / 'journal'} {path}", place)
    run_tool("e2fsck", "-fn", place)


@pytest.mark.parametrize(
    ("root", "data", "said"),
    [
        # A record that was being written when the power went: room was made for it, and nothing else.
        (records(*chained(200)).encode() + bytes(64), records(*chained(199)).encode() + b"000", "200 records, intact"),
        # Right in number and length, but not what follows the record before.
        (records(1, 7, 9).encode(), b"", "torn at record 2"),
        (
            records(*chained(200)).encode(),
            records(*chained(150)).encode(),
            "200 records; the data disk is not of the same",
        ),
        (
            records(*chained(200)).encode(),
            records(*chained(201)).encode(),
            "200 records; the data disk is not of the same",
        ),
    ],
    ids=["cut", "torn", "data is older", "data is newer"],
)
def test_the_journal_tells_a_power_cut_from_damage(
    build: Build, tmp_path: Path, root: bytes, data: bytes, said: str
) -> None:
    guest = build(disks=("system", "data"))
    replace_journal(guest.disks[0], 49 << 20, "/var/lib/failback-guest/journal", root, tmp_path)
    replace_journal(guest.disks[1], 1 << 20, "/journal", data, tmp_path)
    with run(guest, tmp_path, ["virtio-blk", "virtio-blk"]) as machine:
        machine.wait_for(f"failback-guest: journal: {said}")
        machine.wait_for("failback-guest ready: guest boot 1")
        assert machine.page()["journal at boot"].startswith(said)


@pytest.mark.parametrize(
    ("mode", "seen"),
    [("panic", "Kernel panic - not syncing"), ("hang", "failback-guest: mode hang")],
)
def test_a_guest_that_never_boots_says_so_and_stays(build: Build, tmp_path: Path, mode: str, seen: str) -> None:
    with run(build(mode=mode), tmp_path, ["virtio-blk"]) as machine:
        machine.wait_for(seen)
        assert machine.process.poll() is None
        assert machine.qmp("query-status")["running"] is True


@pytest.mark.parametrize("mode", ["halt", "reboot"])
def test_a_guest_that_ends_at_once_does(build: Build, tmp_path: Path, mode: str) -> None:
    with run(build(mode=mode), tmp_path, ["virtio-blk"], options=["-no-reboot"]) as machine:
        assert machine.wait_end(120) == 0
        assert f"failback-guest: mode {mode}" in machine.console
        assert "ready" not in machine.console


def test_a_guest_without_its_http_service_is_ready_all_the_same(build: Build, tmp_path: Path) -> None:
    with run(build(mode="no-http"), tmp_path, ["virtio-blk"]) as machine:
        machine.wait_for("failback-guest ready: guest boot 1")
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            machine.page()
