"""A sparse disk of 16 TiB goes out and comes back in seconds and in little memory: time and space go by its data."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbd.tools import nbdkit, needs_nbdkit, needs_qemu, needs_root, run, small_disk

from cli.conftest import Run, command

pytestmark = needs_root
TIB = 1 << 40
SIZE = 16 * TIB
PARTS = {0: b"boot" * 300, 9 * TIB + 5: b"middle" * 30_000, SIZE - 7: b"the end"}
SECONDS = 180.0
MEMORY = 400 << 20
"""Peak of the whole process: the interpreter, its libraries and the block data."""


MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""A small process between: the kernel counts a child's peak from that of its parent on."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A file system that has files of 16 TiB (ext4 ends four KiB earlier)."""
    with small_disk(tmp_path / "huge", 64) as place:
        yield place


def write(path: Path, parts: dict[int, bytes]) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        for offset, data in parts.items():
            file.seek(offset)
            file.write(data)
        file.truncate(SIZE)


def holds(path: Path, parts: dict[int, bytes]) -> None:
    assert path.stat().st_size == SIZE
    assert path.stat().st_blocks * 512 < 2 << 20
    with path.open("rb") as file:
        for offset, data in parts.items():
            file.seek(offset)
            assert file.read(len(data)) == data


def bounded(*arguments: object) -> None:
    """Run a command; it must succeed within the bounds."""
    measured = [sys.executable, "-c", MEASURE, *command(*arguments)]
    done = subprocess.run(measured, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.splitlines()[-1]) << 10
    assert peak < MEMORY, f"{peak} bytes"


def test_a_raw_disk(repository: Path, place: Path) -> None:
    source, target = place / "source", place / "huge-disk0.raw"
    write(source, PARTS)
    bounded("export", "huge", "--disk", source)
    bounded("import", "huge", "--out", place)
    holds(target, PARTS)
    change = {5 * TIB: b"changed"}
    write(source, change)
    bounded("export", "huge", "--disk", source)
    bounded("import", "huge", "--out", place)
    holds(target, PARTS | change)
    bounded("verify", "huge", "--read")
    bounded("verify", "huge", "--disk", target)
    write(target, {12 * TIB: b"foreign"})
    bounded("import", "huge", "--out", place)
    holds(target, PARTS | change)
    with target.open("rb") as file:
        file.seek(12 * TIB)
        assert file.read(7) == bytes(7)


@needs_qemu
def test_an_image(repository: Path, place: Path, tmp_path: Path) -> None:
    """qcow2: of a VMDK QEMU itself needs more than a minute to tell where its 268 million clusters hold nothing."""
    source = place / "source.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", source, str(SIZE))
    for offset in (0, 9 * TIB, SIZE - 65536):
        run("qemu-io", "-f", "qcow2", "-c", f"write -P 7 {offset} 64k", source)
    bounded("export", "huge", "--disk", source)
    bounded("import", "huge", "--out", tmp_path / "out", "--format", "qcow2")
    target = tmp_path / "out" / "huge-disk0.qcow2"
    run("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", source, target)
    run("qemu-io", "-f", "qcow2", "-c", f"write -P 8 {5 * TIB} 64k", source)
    bounded("export", "huge", "--disk", source)
    bounded("import", "huge", "--out", tmp_path / "out", "--format", "qcow2")
    run("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", source, target)


@needs_nbdkit
def test_a_disk_behind_a_server(repository: Path, place: Path, tmp_path: Path) -> None:
    source = place / "source"
    write(source, PARTS)
    with nbdkit(tmp_path, "--readonly", "file", f"file={source}") as server:
        bounded("export", "huge", "--disk", server.uri)
    bounded("import", "huge", "--out", place)
    holds(place / "huge-disk0.raw", PARTS)


def test_a_file_system_without_such_files_is_named(repository: Path, place: Path, tmp_path: Path, process: Run) -> None:
    write(place / "source", PARTS)
    bounded("export", "huge", "--disk", place / "source")
    image = tmp_path / "ext4"
    image.touch()
    os.truncate(image, 64 << 20)
    run("mkfs.ext4", "-q", "-F", image)
    folder = tmp_path / "mnt"
    folder.mkdir()
    run("mount", "-o", "loop", image, folder)
    try:
        done = process("import", "huge", "--out", folder)
        assert done.code == 7
        assert f"no files of {SIZE} bytes" in done.err
        assert "XFS" in done.err
        assert not (folder / "huge-disk0.raw").exists()
    finally:
        run("umount", folder)
