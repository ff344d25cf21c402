"""A disk of a point leaves as a VMDK stream that independent readers read back bit for bit."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from blake3 import blake3

from pipeline.transfer.disk_stream import DiskStream, StreamOptions
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, text
from transfer.test_round_trip import DISKS, needs_qemu
from transfer.vmdk_reader import read_vmdk

LEVELS = [0, 1, 6]
SIZE = 70 * MIB + 12345
PARTS = {0: text(MIB, 1), 5 * CHUNK + 7: noise(3 * MIB, 2), 40 * MIB: text(5 * MIB, 3), SIZE - 700: b"the end"}


def stream_of(bench: Workbench, level: int, sequence: int | None = None, **options: object) -> DiskStream:
    chosen = StreamOptions(level=level, parallel=2, **options)  # type: ignore[arg-type]
    return DiskStream(bench.repository, bench.point(sequence), bench.disk(sequence), chosen)


def padded(source: Path) -> bytes:
    """What the VMDK of this disk holds: whole sectors, at least one."""
    data = source.read_bytes()
    return data.ljust(max(-(-len(data) // 512), 1) * 512, b"\0")


def by_qemu(stream: bytes, folder: Path) -> bytes:
    image, raw = folder / "image.vmdk", folder / "raw"
    image.write_bytes(stream)
    subprocess.run(["qemu-img", "check", "-q", "-f", "vmdk", image], check=True)
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", image, raw], check=True)
    return raw.read_bytes()


@needs_qemu
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", DISKS)
def test_a_stream_reads_back_bit_for_bit(bench: Workbench, tmp_path: Path, name: str, level: int) -> None:
    source = make_disk(tmp_path / "source", *DISKS[name])
    bench.export(source)
    stream = stream_of(bench, level)
    sent = b"".join(stream)
    assert stream.length == (None if level else len(sent))
    assert read_vmdk(sent).disk() == padded(source)
    assert by_qemu(sent, tmp_path) == padded(source)


@needs_qemu
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("chunk_size", [64 << 10, 256 << 10, 1 << 20])
def test_every_chunk_size_reads_back_bit_for_bit(tmp_path: Path, chunk_size: int, level: int) -> None:
    bench = Workbench(tmp_path, chunk_size=chunk_size)
    source = make_disk(tmp_path / "source", SIZE, PARTS)
    bench.export(source)
    stream = stream_of(bench, level, digests=("sha1", "sha256", "blake3"))
    sent = b"".join(stream)
    assert stream.length == (None if level else len(sent))
    assert read_vmdk(sent).disk() == padded(source)
    assert by_qemu(sent, tmp_path) == padded(source)
    assert stream.digest() == hashlib.sha1(sent).hexdigest()
    assert stream.digest("sha256") == hashlib.sha256(sent).hexdigest()
    assert stream.digest("blake3") == blake3(sent).hexdigest()
    assert stream.counters.sent == len(sent)
    assert stream.counters.done == stream.counters.total == SIZE
    assert b"".join(stream) == sent, "a second time from the beginning"


@pytest.mark.parametrize("level", LEVELS)
def test_chunks_of_many_points_leave_in_their_order(bench: Workbench, tmp_path: Path, level: int) -> None:
    source = make_disk(tmp_path / "source", SIZE, {0: noise(12 * MIB, 1)})
    bench.export(source)
    for round_ in range(4):
        with source.open("r+b") as file:
            for i in range(round_, 200, 5):
                file.seek(i * CHUNK + 100)
                file.write(noise(10, (round_, i)))
        bench.export(source)
    assert read_vmdk(b"".join(stream_of(bench, level))).disk() == padded(source)
