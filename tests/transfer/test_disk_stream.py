"""A disk of a point leaves as a VMDK stream that independent readers read back bit for bit."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.names import pack_key
from pipeline.errors import Cancelled, CorruptObject, TargetMismatch, Unsupported
from pipeline.progress import Counters
from pipeline.transfer.disk_stream import DiskStream, StreamOptions
from pipeline.writers.vmdk_stream import Adapter, adapter_of
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


def test_a_grain_that_would_not_shrink_is_stored(bench: Workbench, tmp_path: Path) -> None:
    bench.export(make_disk(tmp_path / "source", 4 * CHUNK, {0: noise(2 * CHUNK, 1) + text(CHUNK, 2)}))
    assert read_vmdk(b"".join(stream_of(bench, 1))).packed.keys() == {0, 1, 2}
    packed = read_vmdk(b"".join(stream_of(bench, 1))).packed
    assert (packed[0], packed[1]) == (129, 129)
    assert packed[2] < 80


@pytest.mark.parametrize(("bus", "adapter", "heads"), [("ide", "ide", 16), ("scsi", "lsilogic", 255)])
def test_the_descriptor_names_adapter_and_geometry(
    bench: Workbench, tmp_path: Path, bus: str, adapter: Adapter, heads: int
) -> None:
    bench.export(make_disk(tmp_path / "source", 10 * MIB, {0: b"x"}))
    assert adapter_of(bus) == adapter
    said = read_vmdk(b"".join(stream_of(bench, 0, adapter=adapter))).descriptor
    assert f'ddb.adapterType = "{adapter}"' in said
    assert f'ddb.geometry.heads = "{heads}"' in said
    assert f'ddb.geometry.cylinders = "{10 * 2048 // (heads * 63)}"' in said
    assert len(said) < 512


@needs_qemu
@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("beyond", [1, 512, CHUNK, 33 * MIB])
def test_a_larger_target_is_zero_behind_the_disk(bench: Workbench, tmp_path: Path, beyond: int, level: int) -> None:
    source = make_disk(tmp_path / "source", SIZE, PARTS)
    bench.export(source)
    stream = stream_of(bench, level, announce=True, capacity=SIZE + beyond)
    sent = b"".join(stream)
    assert stream.length == len(sent)
    wanted = source.read_bytes().ljust(-(-(SIZE + beyond) // 512) * 512, b"\0")
    assert read_vmdk(sent).disk() == wanted
    assert by_qemu(sent, tmp_path) == wanted


def test_a_target_that_is_too_small_is_refused(bench: Workbench, tmp_path: Path) -> None:
    bench.export(make_disk(tmp_path / "source", SIZE, PARTS))
    with pytest.raises(TargetMismatch, match=str(SIZE)):
        stream_of(bench, 0, capacity=SIZE - 1)


def test_a_stream_that_is_closed_early_leaves_no_threads(bench: Workbench, tmp_path: Path) -> None:
    bench.export(make_disk(tmp_path / "source", SIZE, {0: noise(60 * MIB, 1)}))
    before = set(threading.enumerate())
    stream = stream_of(bench, 1)
    with closing(iter(stream)) as blocks:
        for _ in range(3):
            next(blocks)
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="not read to its end"):
        stream.digest()


def test_a_watch_can_end_a_stream(bench: Workbench, tmp_path: Path) -> None:
    bench.export(make_disk(tmp_path / "source", SIZE, {0: noise(30 * MIB, 1)}))

    def watch(counters: Counters) -> None:
        if counters.done > 10 * MIB:
            raise Cancelled("enough")

    stream = DiskStream(bench.repository, bench.point(), bench.disk(), StreamOptions(level=1), watch=watch)
    sent: list[bytes] = []
    with pytest.raises(Cancelled):
        sent.extend(stream)
    assert 8 * MIB < sum(map(len, sent)) < 20 * MIB


@pytest.mark.parametrize("announce", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_a_damaged_chunk_is_named_and_does_not_leave(
    bench: Workbench, tmp_path: Path, level: int, announce: bool
) -> None:
    data = noise(40 * CHUNK, 1)
    bench.export(make_disk(tmp_path / "source", 100 * CHUNK + 7, {20 * CHUNK: data}))
    _chunk, pack, offset, _length = bench.index()[33]
    broken = bytearray(bench.store.get(pack_key(pack)))
    broken[offset + 1000] ^= 1
    bench.store.put(pack_key(pack), broken)
    sent = []
    with pytest.raises(
        CorruptObject, match=rf"^vm@1 disk 0: its {CHUNK} bytes at {33 * CHUNK} cannot be had"
    ) as caught:
        sent.extend(stream_of(bench, level, announce=announce))
    assert caught.value.remedy
    assert data[13 * CHUNK : 13 * CHUNK + 500] not in b"".join(sent)


def test_a_stream_that_would_reach_two_tebibytes_is_refused_before_it_begins(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bench.export(make_disk(tmp_path / "source", 30 * MIB, {0: noise(10 * MIB, 1)}))
    monkeypatch.setattr("pipeline.writers.vmdk_stream.MAX_STREAM", 9 * MIB)
    with pytest.raises(Unsupported, match="VMDK stream") as caught:
        stream_of(bench, 0)
    assert "worker" in caught.value.remedy
    with pytest.raises(Unsupported, match="VMDK stream"):
        list(stream_of(bench, 1))
    monkeypatch.setattr("pipeline.writers.vmdk_stream.MAX_STREAM", 11 * MIB)
    list(stream_of(bench, 0))


def test_several_streams_run_side_by_side(bench: Workbench, tmp_path: Path) -> None:
    sources = [make_disk(tmp_path / f"source{i}", SIZE + i, {i * MIB: text(20 * MIB, i)}) for i in range(3)]
    bench.export(*sources)
    streams = [
        DiskStream(bench.repository, bench.point(), bench.disk(number=i), StreamOptions(level=1, parallel=2))
        for i in range(3)
    ]
    with ThreadPoolExecutor(3) as pool:
        sent = list(pool.map(b"".join, streams))
    for source, data in zip(sources, sent, strict=True):
        assert read_vmdk(data).disk() == padded(source)


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, dict[int, bytes]]:
    """Odd sizes, data anywhere, of every kind."""
    size = draw(st.one_of(st.integers(0, 3 * CHUNK), st.integers(0, 40 * MIB)))
    parts = {}
    for number in range(draw(st.integers(0, 6)) if size else 0):
        offset = draw(st.integers(0, size - 1))
        length = draw(st.integers(1, min(size - offset, 300_000)))
        kind = draw(st.sampled_from([noise, text, lambda n, _: bytes(n)]))
        parts[offset] = kind(length, number)
    return size, parts


@needs_qemu
@settings(max_examples=50, deadline=None)
@given(
    disk=disks(),
    chunk_size=st.sampled_from([64 << 10, 128 << 10, 1 << 20]),
    level=st.sampled_from(LEVELS),
    announce=st.booleans(),
    encrypted=st.booleans(),
    memory=st.sampled_from([0, 48 << 20]),
)
def test_whatever_the_disk_holds_its_stream_reads_back(
    disk: tuple[int, dict[int, bytes]], chunk_size: int, level: int, announce: bool, encrypted: bool, memory: int
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        bench = Workbench(folder, chunk_size=chunk_size, encrypted=encrypted)
        source = make_disk(folder / "source", *disk)
        bench.export(source)
        stream = stream_of(bench, level, announce=announce, memory=memory)
        sent = b"".join(stream)
        assert stream.length == (len(sent) if announce or not level else None)
        assert read_vmdk(sent).disk() == padded(source)
        assert by_qemu(sent, folder) == padded(source)


def test_a_stream_holds_a_bounded_part_of_the_disk(bench: Workbench, tmp_path: Path) -> None:
    source = make_disk(tmp_path / "source", 200 * MIB, {0: noise(8 * MIB, 1) * 25})
    with source.open("r+b") as file:
        for i in range(3200):
            file.seek(i * CHUNK)
            file.write(noise(16, i))
    bench.export(source)
    tracemalloc.start()
    held = tracemalloc.get_traced_memory()[0]
    sent = sum(map(len, stream_of(bench, 1, memory=24 * MIB)))
    peak = tracemalloc.get_traced_memory()[1] - held
    tracemalloc.stop()
    assert sent > 190 * MIB
    assert peak < 60 * MIB
