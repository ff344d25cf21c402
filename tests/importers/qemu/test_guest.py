"""A small Linux on every bus, with BIOS and UEFI: it boots, has both disks, its services answer, it shuts down."""

from __future__ import annotations

import os
import signal
import sys
import time
import urllib.request
from pathlib import Path

import pytest

# The builder is not installed: it is found from the top of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from importers.qemu.process import running
from manifests.machine import Machine, Nic
from pipeline.boot.cache import default_folder
from pipeline.errors import TargetError
from pipeline.target import Build
from qemu.bench import Bench, until
from scripts.guest import build_guest
from scripts.guest.recipe import Firmware, Role

_CACHE = default_folder()
"""Looked up before tests isolate themselves."""
READY = "failback-guest ready"

pytestmark = pytest.mark.slow


def guest(root: Path, firmware: Firmware, buses: tuple[str, str], roles: tuple[Role, Role]) -> Bench:
    made = build_guest(root / "guest", firmware=firmware, disks=roles, cache=_CACHE)
    hardware = Machine(name="vm", firmware=firmware, cpus=2, memory_bytes=512 << 20, nics=(Nic(network="lan"),))
    return Bench(root, *made.disks, hardware=hardware, disks={n: {"bus": bus} for n, bus in enumerate(buses)})


def partitions(bench: Bench, build: Build) -> str:
    """What the guest's kernel sees."""
    done = bench.importer().command(build, ["cat", "/proc/partitions"], seconds=60)
    assert done.exit_code == 0
    return done.output.decode()


@pytest.mark.parametrize(
    ("firmware", "buses", "roles", "names"),
    [
        ("bios", ("virtio", "virtio"), ("system", "data"), ("vda", "vdb")),
        ("bios", ("sata", "sata"), ("system", "data"), ("sda", "sdb")),
        ("bios", ("nvme", "nvme"), ("system", "data"), ("nvme0n1", "nvme1n1")),
        ("bios", ("pvscsi", "pvscsi"), ("system", "data"), ("sda", "sdb")),
        ("bios", ("lsisas", "lsisas"), ("system", "data"), ("sda", "sdb")),
        ("uefi", ("virtio", "virtio"), ("system", "data"), ("vda", "vdb")),
        ("uefi", ("sata", "sata"), ("system", "data"), ("sda", "sdb")),
        ("uefi", ("nvme", "nvme"), ("system", "data"), ("nvme0n1", "nvme1n1")),
        ("uefi", ("sata", "pvscsi"), ("loader", "root"), ("sda", "sdb")),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else value,
)
def test_a_guest_with_two_disks_boots_on(
    tmp_path: Path, firmware: Firmware, buses: tuple[str, str], roles: tuple[Role, Role], names: tuple[str, str]
) -> None:
    bench = guest(tmp_path, firmware, buses, roles)
    importer = bench.importer()
    with bench.running("rehearsal") as build:
        until(importer, build, lambda now: READY in now.console)
        way = importer.reach(build, 80)
        assert way is not None
        with urllib.request.urlopen(f"http://{way.host}:{way.port}/", timeout=30) as answer:
            assert answer.status == 200
        seen = until(importer, build, lambda now: bool(now.heartbeat and now.addresses and now.hostname))
        assert seen.addresses == ("10.0.2.15/24",)
        assert all(name in partitions(bench, build) for name in names)
        seen = importer.stop(build, seconds=60)
        assert (seen.power, seen.reason) == ("off", "the guest shut down")


def test_what_a_guest_flushed_survives_a_kill_of_qemu(tmp_path: Path) -> None:
    bench = guest(tmp_path, "bios", ("virtio", "virtio"), ("system", "data"))
    importer = bench.importer()
    with bench.running() as build:
        until(importer, build, lambda now: bool(now.heartbeat))
        write = ["sh", "-c", "echo it was here > /root/note || echo it was here > /note; sync"]
        assert importer.command(build, write, seconds=60).exit_code == 0
        with running(bench.folder, str(bench.marker)) as process:
            assert process is not None
            os.kill(process.number, signal.SIGKILL)
        until(importer, build, lambda now: now.power == "off")
        bench.boot(build)
        until(importer, build, lambda now: bool(now.heartbeat))
        read = importer.command(build, ["sh", "-c", "cat /root/note /note"], seconds=60)
        assert read.output == b"it was here\n"


def test_a_command_in_the_guest_that_takes_too_long_or_is_not_there_is_told(tmp_path: Path) -> None:
    bench = guest(tmp_path, "bios", ("virtio", "virtio"), ("system", "data"))
    importer = bench.importer()
    with bench.running() as build:
        until(importer, build, lambda now: bool(now.heartbeat))
        started = time.monotonic()
        with pytest.raises(TargetError, match="did not end"):
            importer.command(build, ["sleep", "600"], seconds=2)
        assert time.monotonic() - started < 30
        with pytest.raises(TargetError, match="cannot run"):
            importer.command(build, ["/no/such/program"], seconds=30)
        echoed = importer.command(build, ["sh", "-c", "cat; echo oops >&2; exit 3"], stdin=b"in", seconds=60)
        assert (echoed.exit_code, echoed.output, echoed.error) == (3, b"in", b"oops\n")
