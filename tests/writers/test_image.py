"""Images as targets: sizes, existing ones, death of the server and ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nbd.tools import needs_qemu, own_servers, qemu_nbd, run

from pipeline.errors import TargetBusy, TargetError, TargetMismatch
from pipeline.exporters.open import open_exporter
from pipeline.writers.open import open_writer
from writers.conftest import read_back

pytestmark = needs_qemu
MIB = 1024 * 1024


@pytest.mark.parametrize("image_format", ["qcow2", "vmdk", "vhd", "vhdx"])
def test_a_size_is_rounded_up_and_the_tail_reads_as_zeros(tmp_path: Path, image_format: str) -> None:
    size = 3 * MIB + 777
    path = tmp_path / f"disk.{image_format}"
    writer = open_writer(str(path), size=size)
    assert size <= writer.size <= 4 * MIB
    writer.write(size - 1000, [b"x" * 1000])
    writer.flush()
    writer.close()
    exporter = open_exporter(str(path))
    buffer = bytearray(exporter.size - size + 1)
    exporter.read_into(size - 1, memoryview(buffer))
    assert buffer == b"x" + bytes(exporter.size - size)
    exporter.close()
    run("qemu-img", "info", path)


@pytest.mark.parametrize("image_format", ["qcow2", "vmdk", "vhdx"])
def test_an_image_of_16_tib_is_made_and_written_at_its_end(tmp_path: Path, image_format: str) -> None:
    size = 16 * 1024**4
    path = tmp_path / f"disk.{image_format}"
    writer = open_writer(str(path), size=size)
    writer.write(size - 512, [b"e" * 512])
    writer.flush()
    assert read_back(writer, size - 1024, 1024) == bytes(512) + b"e" * 512
    writer.close()
    assert path.stat().st_blocks * 512 < 64 * MIB


def test_a_finished_image_is_consistent(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    writer = open_writer(str(path), size=64 * MIB)
    for start in range(0, 64 * MIB, 3 * MIB):
        writer.write(start, [b"x" * MIB])
        writer.discard(start + 65_536, 131_072)
    writer.flush()
    writer.close()
    run("qemu-img", "check", path)


def test_an_existing_image_that_is_too_small_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    open_writer(str(path), size=MIB).close()
    with pytest.raises(TargetMismatch, match="resize"):
        open_writer(str(path), size=2 * MIB, create=False)
    assert own_servers() == []


def test_an_image_over_a_backing_file_is_not_written(tmp_path: Path) -> None:
    base = tmp_path / "base.qcow2"
    top = tmp_path / "top.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", base, "1M")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
    with pytest.raises(TargetMismatch, match=r"base\.qcow2"):
        open_writer(str(top), size=MIB, create=False)


def test_another_format_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(b"precious" * 1000)
    with pytest.raises(TargetMismatch, match="no qcow2 image"):
        open_writer(str(path), size=512, create=False)


def test_an_image_that_a_machine_uses_is_busy(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    open_writer(str(path), size=MIB).close()
    for options in ([], ["--read-only"]):
        with qemu_nbd(tmp_path, *options, "--format=qcow2", path), pytest.raises(TargetBusy):
            open_writer(str(path), size=MIB, create=False)
    open_writer(str(path), size=MIB, create=False).close()


def test_a_server_that_dies_is_a_clear_error(tmp_path: Path) -> None:
    writer = open_writer(str(tmp_path / "disk.qcow2"), size=MIB)
    os.kill(own_servers()[0], signal.SIGKILL)
    time.sleep(0.2)
    with pytest.raises(TargetError, match=r"disk\.qcow2"):
        writer.write(0, [b"x" * 512])
    with pytest.raises(TargetError):
        writer.flush()
    with pytest.raises(TargetError, match="not closed cleanly"):
        writer.close()
    assert own_servers() == []


def test_what_was_flushed_survives_our_death_and_the_image_is_free_again(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    program = (
        "import sys, time; from pipeline.writers.open import open_writer\n"
        "writer = open_writer(sys.argv[1], size=1 << 20)\n"
        "writer.write(0, [b'x' * 65536]); writer.flush(); print('ready', flush=True); time.sleep(60)"
    )
    victim = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"ready\n"
    victim.kill()
    victim.wait()
    victim.stdout.close()
    deadline = time.monotonic() + 10
    while True:
        try:
            writer = open_writer(str(path), size=MIB, create=False)
            break
        except TargetBusy:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert read_back(writer, 0, 65_536) == b"x" * 65_536
    writer.close()
    run("qemu-img", "check", path)
