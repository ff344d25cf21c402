"""Disk images: backing files, dirty bitmaps, images in use, and the life of the qemu-nbd behind them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from nbd.tools import needs_qemu, own_servers, qemu_nbd, run

from exporters.conftest import read, sparse_content, write_sparse
from pipeline.errors import SourceBusy, SourceChanged, SourceError, UsageError
from pipeline.exporters.image import ImageExporter
from pipeline.exporters.open import open_exporter
from pipeline.writers.open import open_writer

pytestmark = needs_qemu
MIB = 1024 * 1024


def qcow2(path: Path, size: int = 8 * MIB, *options: str) -> Path:
    run("qemu-img", "create", "-q", "-f", "qcow2", *options, path, str(size))
    return path


def qemu_io(path: Path, *commands: str, image_format: str = "qcow2") -> None:
    run("qemu-io", "-f", image_format, *(part for command in commands for part in ("-c", command)), path)


@pytest.fixture
def chain(tmp_path: Path) -> tuple[Path, Path, bytes]:
    """A qcow2 over a raw disk: (top, base, what is read)."""
    content = bytearray(sparse_content(8 * MIB))
    base = tmp_path / "base.raw"
    write_sparse(base, bytes(content))
    top = tmp_path / "top, with a comma.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", top)
    qemu_io(top, "write -P 7 1M 64k", "write -z 2M 64k")
    content[MIB : MIB + 65_536] = b"\7" * 65_536
    content[2 * MIB : 2 * MIB + 65_536] = bytes(65_536)
    return top, base, bytes(content)


def test_backing_files_are_read_through(chain: tuple[Path, Path, bytes]) -> None:
    top, _, content = chain
    exporter = open_exporter(str(top))
    assert read(exporter, 0, exporter.size) == content
    exporter.close()


def test_the_identity_is_that_of_every_file_in_the_chain(chain: tuple[Path, Path, bytes]) -> None:
    top, base, _ = chain
    exporter = open_exporter(str(top))
    first = exporter.identity
    exporter.check_unchanged()
    with base.open("r+b") as file:
        file.write(b"x")
    with pytest.raises(SourceChanged, match="backing files"):
        exporter.check_unchanged()
    exporter.close()
    again = open_exporter(str(top))
    assert again.identity != first
    again.close()


def test_an_image_that_points_to_the_network_is_refused(tmp_path: Path) -> None:
    image = qcow2(tmp_path / "disk.qcow2")
    run("qemu-img", "rebase", "-u", "-F", "raw", "-b", "nbd://127.0.0.1:1/secret", image)
    with pytest.raises(SourceError):
        open_exporter(str(image))


@pytest.mark.parametrize("locked", ["top", "base"])
def test_an_image_that_a_machine_writes_is_busy(chain: tuple[Path, Path, bytes], tmp_path: Path, locked: str) -> None:
    top, base, _ = chain
    image, image_format = (top, "qcow2") if locked == "top" else (base, "raw")
    with qemu_nbd(tmp_path, f"--format={image_format}", image):
        with pytest.raises(SourceBusy, match="QEMU") as caught:
            open_exporter(str(top))
        assert "--allow-live" in caught.value.remedy
        live = open_exporter(str(top), allow_live=True)
        assert live.live
        assert live.identity is None
        assert len(read(live, 0, MIB)) == MIB
        live.check_unchanged()
        live.close()
    exporter = open_exporter(str(top))
    assert not exporter.live
    exporter.close()


def test_an_image_that_others_only_read_is_not_busy(tmp_path: Path) -> None:
    image = qcow2(tmp_path / "disk.qcow2")
    with qemu_nbd(tmp_path, "--read-only", "--format=qcow2", image):
        exporter = open_exporter(str(image))
        assert not exporter.live
        exporter.close()


def test_a_vmdk_of_several_files_is_one_disk(tmp_path: Path) -> None:
    content = sparse_content(8 * MIB)
    raw = tmp_path / "disk.raw"
    write_sparse(raw, content)
    image = tmp_path / "disk.vmdk"
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", raw, image)
    exporter = open_exporter(str(image))
    assert read(exporter, 0, exporter.size) == content
    assert exporter.identity is not None
    with (tmp_path / "disk-flat.vmdk").open("r+b") as file:
        file.write(b"x")
    with pytest.raises(SourceChanged):
        exporter.check_unchanged()
    exporter.close()


@pytest.mark.parametrize("granularity", [65_536, 4096])
def test_a_dirty_bitmap_tells_exactly_what_was_written(tmp_path: Path, granularity: int) -> None:
    size = 64 * MIB + 512
    image = qcow2(tmp_path / "disk.qcow2", size)
    run("qemu-img", "bitmap", "--add", "-g", str(granularity), image, "since-monday")
    source = random.Random(granularity)
    grains: set[int] = set()
    commands = []
    for _ in range(120):
        start = source.randrange(0, size - 512, 512)
        length = min(512 * source.choice([1, 3, 16, 200]), size - start)
        commands.append(f"write -P 1 {start} {length}")
        grains.update(range(start // granularity, (start + length - 1) // granularity + 1))
    commands.append(f"write -P 1 {size - 512} 512")  # the last grain is cut off by the end of the disk
    grains.add((size - 512) // granularity)
    qemu_io(image, *commands)
    run("qemu-img", "bitmap", "--add", "-g", str(granularity), image, "empty")

    exporter = open_exporter(str(image))
    assert exporter.change_maps() == ["since-monday", "empty"]
    assert exporter.broken_change_maps() == {}
    found = list(exporter.changed_extents("since-monday"))
    covered: set[int] = set()
    end = 0
    for offset, length in found:
        assert offset >= end
        assert length > 0
        end = offset + length
        assert offset % granularity == 0
        assert end % granularity == 0 or end == size
        covered.update(range(offset // granularity, -(-end // granularity)))
    assert covered == grains
    assert list(exporter.changed_extents("empty")) == []
    with pytest.raises(KeyError):
        list(exporter.changed_extents("none"))
    exporter.close()
    assert own_servers() == []


def test_a_bitmap_that_was_not_stored_completely_is_not_offered(tmp_path: Path) -> None:
    image = qcow2(tmp_path / "disk.qcow2")
    run("qemu-img", "bitmap", "--add", image, "broken")
    with qemu_nbd(tmp_path, "--format=qcow2", image) as server:
        writer = open_writer(server.uri, size=MIB)
        writer.write(0, [b"x" * 512])
        writer.flush()
        server.kill()  # a bitmap in use is written back at the end, which does not come
        writer.close()
    flags = json.loads(run("qemu-img", "info", "--output=json", image))["format-specific"]["data"]["bitmaps"][0][
        "flags"
    ]
    assert "in-use" in flags
    exporter = open_exporter(str(image))
    assert exporter.change_maps() == []
    assert exporter.broken_change_maps() == {"broken": "it was not stored completely"}
    exporter.close()


def test_a_damaged_image_says_what_qemu_says(tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    image.write_bytes(b"QFI\xfb" + bytes(600))
    with pytest.raises(SourceError, match="cannot be opened as qcow2"):
        open_exporter(str(image))
    assert own_servers() == []


def test_missing_tools_are_named_with_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = qcow2(tmp_path / "disk.qcow2")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        open_exporter(str(image))
    assert "apt-get install qemu-utils" in caught.value.remedy


def test_the_socket_is_nowhere_to_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    exporter = open_exporter(str(qcow2(tmp_path / "disk.qcow2")))
    assert list(place.iterdir()) == []
    exporter.close()


def test_qemu_nbd_ends_when_we_are_killed(tmp_path: Path) -> None:
    image = qcow2(tmp_path / "disk.qcow2")
    program = (
        "import sys, time; from pipeline.exporters.open import open_exporter; exporter = open_exporter(sys.argv[1]);"
        "print(exporter._server._process.pid, flush=True); time.sleep(60)"
    )
    victim = subprocess.Popen(
        [sys.executable, "-c", program, str(image)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert victim.stdout is not None
    server = int(victim.stdout.readline())
    assert b"qemu-nbd" in Path(f"/proc/{server}/cmdline").read_bytes()
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _alive(server):
        time.sleep(0.02)
    assert not _alive(server)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_server_that_dies_is_a_clear_error_and_closing_goes_on(tmp_path: Path) -> None:
    exporter = open_exporter(str(qcow2(tmp_path / "disk.qcow2")))
    assert isinstance(exporter, ImageExporter)
    victim = own_servers()[0]
    os.kill(victim, signal.SIGKILL)
    while _alive(victim):
        time.sleep(0.01)
    with pytest.raises(SourceError, match=r"disk\.qcow2"):
        read(exporter, 0, 512)
    with contextlib.suppress(SourceError):
        exporter.close()
    assert own_servers() == []
