"""A restored disk equals its source bit for bit."""

from __future__ import annotations

import shutil
import subprocess
import time
import tracemalloc
from pathlib import Path

import pytest

from pipeline.transfer.restore import DiskRestore
from pipeline.transfer.stage import Stage
from transfer.support import CHUNK, MIB, FakeDisk, FakeTarget, Workbench, allocated, make_disk, noise, same, text

needs_qemu = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")

DISKS: dict[str, tuple[int, dict[int, bytes]]] = {
    "empty": (0, {}),
    "one byte": (1, {0: b"x"}),
    "one zero byte": (1, {}),
    "all zero": (3 * MIB, {0: bytes(MIB)}),
    "no data": (3 * MIB, {}),
    "odd size": (5 * CHUNK + 12345, {0: noise(5 * CHUNK + 12345, 1)}),
    "one byte into a chunk": (4 * CHUNK + 1, {4 * CHUNK: b"\xff"}),
    "one byte short of a chunk": (4 * CHUNK - 1, {3 * CHUNK: noise(CHUNK - 1, 1)}),
    "holes at both ends": (4 * MIB, {MIB + 777: text(MIB, 2)}),
    "hole in the middle": (4 * MIB, {0: text(100_000, 3), 4 * MIB - 5: b"final"}),
    "incompressible": (3 * MIB, {0: noise(3 * MIB, 4)}),
    "compressible": (3 * MIB, {0: text(3 * MIB, 5)}),
    "the same chunk everywhere": (3 * MIB, {0: noise(CHUNK, 6) * 48}),
}


@pytest.mark.parametrize("name", DISKS)
def test_a_raw_disk_comes_back_bit_for_bit(bench: Workbench, tmp_path: Path, name: str) -> None:
    size, parts = DISKS[name]
    source = make_disk(tmp_path / "source", size, parts)
    bench.export(source)
    [done] = bench.restore()
    assert done.mode == "full"
    assert same(source, bench.restored())
    assert allocated(bench.restored()) <= 1.02 * allocated(source) + 4096
    bench.verified()
    bench.check_pack_lists()


@needs_qemu
@pytest.mark.parametrize("image_format", ["qcow2", "vmdk"])
@pytest.mark.parametrize("name", ["empty", "one byte", "odd size", "holes at both ends"])
def test_an_image_comes_back_bit_for_bit(bench: Workbench, tmp_path: Path, name: str, image_format: str) -> None:
    size, parts = DISKS[name]
    source = make_disk(tmp_path / "source", size, parts)
    bench.export(source)
    bench.restore(image_format=image_format)
    raw = tmp_path / "raw"
    target = bench.restored(image_format=image_format)
    subprocess.run(["qemu-img", "convert", "-f", image_format, "-O", "raw", target, raw], check=True)
    content = raw.read_bytes()
    assert content[:size] == source.read_bytes()
    assert not any(content[size:])


@pytest.mark.parametrize("chunk_size", [64 << 10, 256 << 10, 1 << 20])
def test_every_chunk_size_comes_back_bit_for_bit(tmp_path: Path, chunk_size: int) -> None:
    bench = Workbench(tmp_path, chunk_size=chunk_size)
    size = 5 * MIB + 4321
    source = make_disk(tmp_path / "source", size, {0: text(MIB, 1), 2 * MIB + 9: noise(MIB, 2), size - 3: b"end"})
    bench.export(source)
    bench.restore()
    assert same(source, bench.restored())
    assert bench.disk().chunk_size == chunk_size
    bench.verified()


def test_several_disks_of_a_machine_come_back_in_their_order(bench: Workbench, tmp_path: Path) -> None:
    sources = [
        make_disk(tmp_path / f"source{i}", 2 * MIB + i, {i * CHUNK: noise(300_000, i), MIB: b"all"}) for i in range(3)
    ]
    bench.export(*sources)
    results = bench.restore()
    assert [r.number for r in results] == [0, 1, 2]
    for number, source in enumerate(sources):
        assert same(source, bench.restored(number))
    assert len({d.lineage for d in bench.point().manifest.disks}) == 3


def test_an_equal_chunk_is_sent_once(bench: Workbench, tmp_path: Path) -> None:
    result = bench.export(make_disk(tmp_path / "source", 3 * MIB, {0: noise(CHUNK, 6) * 48}), workers=1)
    counters = result.disks[0].counters
    assert counters.sent < 10 * CHUNK, "workers that run side by side may send a chunk a few times, not 48 times"


def test_sixteen_tebibytes_with_three_chunks_of_data_are_quick(bench: Workbench, tmp_path: Path) -> None:
    size = (16 << 40) - 512
    parts = {0: b"first", (9 << 40) + 5: noise(100, 1), size - 4: b"last"}
    source = FakeDisk(size, parts)
    tracemalloc.start()
    started = time.monotonic()
    bench.export(source)
    assert source.read <= 4 * CHUNK
    target = FakeTarget(size)
    restore = DiskRestore(bench.repository, bench.point(), bench.disk(), target, Stage(tmp_path / "stage"), parallel=2)
    assert restore.run().counters.written < 4 * CHUNK
    parts[5 << 40] = b"change"
    assert bench.export(FakeDisk(size, parts)).disks[0].counters.chunks_new == 1
    target.fresh = False
    restore = DiskRestore(bench.repository, bench.point(), bench.disk(), target, Stage(tmp_path / "stage"), parallel=2)
    assert restore.run().mode == "refresh"
    spent = time.monotonic() - started
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for offset, data in parts.items():
        back = bytearray(len(data))
        target.read_into(offset, memoryview(back))
        assert back == data
    assert len(target.blocks) < 4 * CHUNK // 4096
    assert spent < 60
    assert peak < 200 * MIB
    assert sum(info.size for info in bench.store.list("pages/")) < 3 * MIB
