"""A worker's disk boots in a machine like VMware's, pairs over S3, and writes a disk that is attached while it runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import which

import pytest
from guest.machine import OVMF, Machine
from servers import Server, die_with_parent
from transfer.support import CHUNK, MIB, make_disk, noise, poke, same

from agent.conftest import Site
from pipeline.agent.code import StoreLogin
from pipeline.agent.image import build_worker
from pipeline.agent.orders import DiskName
from pipeline.errors import UsageError

_TOOLS = ("qemu-system-x86_64", "apt-get", "grub-mkimage", "mformat", "sfdisk")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(which, _TOOLS)), reason="the tools to make and boot a disk are not installed"),
]
SIZE = 24 * MIB
SERIAL = "6000c29a-1b2c-3d4e-5f60-718293a4b5c6"
"""As vSphere shows a disk's UUID."""


@contextmanager
def booted(disk: Path, folder: Path, nic: str, firmware: str, settings: str) -> Iterator[Machine]:
    """A machine with PVSCSI, as vSphere would make it. By UEFI the worker's own disk is elsewhere: Debian's build has
    no driver for PVSCSI."""
    conf = folder / "worker.conf"
    conf.write_text(settings)
    command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"]
    command += ["-display", "none", "-serial", "stdio", "-no-user-config", "-nodefaults", "-vga", "std"]
    command += ["-qmp", f"unix:{folder}/qmp,server=on,wait=off", "-fw_cfg", f"name=opt/failback/worker,file={conf}"]
    command += ["-netdev", "user,id=net", "-device", f"{nic},netdev=net,romfile="]
    command += ["-device", "pvscsi,id=h0", "-drive", f"if=none,id=own,format=raw,readonly=on,file={disk}"]
    if firmware == "uefi":
        command += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF}/OVMF_CODE_4M.fd"]
        command += ["-device", "virtio-blk-pci,drive=own,bootindex=0"]
    else:
        command += ["-device", "scsi-hd,bus=h0.0,drive=own,bootindex=0"]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=die_with_parent
    )
    try:
        yield Machine(process, folder, 0, 0)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("nic", "firmware"), [("vmxnet3", "bios"), ("e1000e", "uefi")])
def test_a_worker_writes_a_disk_that_is_attached_while_it_runs(
    worker_disk: Path, minio_endpoint: Server, tmp_path: Path, stack: ExitStack, nic: str, firmware: str
) -> None:
    login = StoreLogin(minio_endpoint.access_key, minio_endpoint.secret_key)
    site = Site(tmp_path, minio_endpoint.address(), stack, login)
    source = make_disk(tmp_path / "source", SIZE, {p * CHUNK: noise(CHUNK, p) for p in range(0, 300, 2)})
    site.bench.export(source)
    target = make_disk(tmp_path / "target", SIZE)
    # QEMU's user network shows this host as 10.0.2.2.
    there = site.address.replace("127.0.0.1", "10.0.2.2")
    code = site.agents.pair("worker", there, login=login)
    with booted(worker_disk, tmp_path, nic, firmware, f"code={code.encode()}\nidle=1\nhostname=worker-7\n") as machine:
        machine.wait_for("agent starts", 600)
        pairing = site.agents.await_answer(code.agent, 600)
        assert pairing.host == "worker-7"
        remote = site.agents.agent(code.agent)
        machine.qmp(
            "blockdev-add", **{"node-name": "t", "driver": "raw", "file": {"driver": "file", "filename": str(target)}}
        )
        machine.qmp("device_add", driver="scsi-hd", bus="h0.0", drive="t", id="t0", serial=SERIAL.replace("-", ""))
        name = DiskName(serial=SERIAL, size=SIZE)
        for _ in range(20):
            if any(disk["size"] == SIZE for disk in remote.inventory()):
                break
        first = site.receive(remote, name, held=site.held(None))
        assert first.report.result["mode"] == "full"
        poke(source, 7 * CHUNK, noise(CHUNK, "new"))
        site.bench.export(source)
        second = site.receive(remote, name, held=site.held(1))
        assert second.report.result["written"] == CHUNK
        machine.qmp("device_del", id="t0")
        print(first.steps, second.steps)
        site.agents.remove(code.agent)
        assert machine.wait_end(300) == 0
    assert same(source, target)
    assert "login" not in machine.console


def test_a_worker_is_not_made_over_another_file(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(UsageError, match="exists already"):
        build_worker(tmp_path / "there")
