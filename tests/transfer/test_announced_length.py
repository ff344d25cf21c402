"""A compressed stream may be announced with a length: it has exactly that, and every reader takes what fills it up."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import LengthExceeded
from pipeline.transfer import stream_length
from pipeline.transfer.disk_stream import DiskStream, StreamOptions
from pipeline.writers.vmdk_grain import STORED, compressed, compressor, length_of, stretched
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, text
from transfer.test_disk_stream import PARTS, SIZE, by_qemu, padded
from transfer.test_round_trip import DISKS, needs_qemu
from transfer.vmdk_reader import GRAIN, read_vmdk


def announced(bench: Workbench, level: int = 1) -> DiskStream:
    return DiskStream(bench.repository, bench.point(), bench.disk(), StreamOptions(level=level, announce=True))


@needs_qemu
@pytest.mark.parametrize("name", DISKS)
def test_a_disk_that_is_sampled_whole_is_no_longer_than_it_must_be(bench: Workbench, tmp_path: Path, name: str) -> None:
    source = make_disk(tmp_path / "source", *DISKS[name])
    bench.export(source)
    stream = announced(bench)
    sent = b"".join(stream)
    assert stream.length == len(sent)
    assert sent == b"".join(DiskStream(bench.repository, bench.point(), bench.disk(), StreamOptions(level=1)))
    assert by_qemu(sent, tmp_path) == padded(source)


@needs_qemu
@pytest.mark.parametrize("chunk_size", [64 << 10, 256 << 10, 1 << 20])
def test_a_sampled_disk_has_the_length_that_was_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_size: int
) -> None:
    monkeypatch.setattr(stream_length, "SAMPLE", 20)
    bench = Workbench(tmp_path, chunk_size=chunk_size)
    source = make_disk(tmp_path / "source", SIZE, PARTS | {50 * MIB: text(15 * MIB, 9)})
    bench.export(source)
    stream = announced(bench)
    sent = b"".join(stream)
    assert (
        stream.length
        == len(sent)
        < 0.9 * len(b"".join(DiskStream(bench.repository, bench.point(), bench.disk(), StreamOptions())))
    )
    assert read_vmdk(sent).disk() == padded(source)
    assert by_qemu(sent, tmp_path) == padded(source)
    assert b"".join(stream) == sent


def test_a_sample_of_a_disk_of_many_kinds_of_data_suffices(bench: Workbench, tmp_path: Path) -> None:
    kinds: list[Callable[[int, object], bytes]] = [noise, text, lambda length, _seed: b"\1" * length]
    source, choice = tmp_path / "source", random.Random(1)
    with source.open("wb") as file:
        for i in range(3000):
            file.write(choice.choice(kinds)(CHUNK // 8, i) * 8)
    bench.export(source)
    stream = announced(bench)
    assert stream.length == sum(map(len, stream))
    plain = sum(map(len, DiskStream(bench.repository, bench.point(), bench.disk(), StreamOptions(level=1))))
    assert plain < stream.length < 1.15 * plain


def test_a_length_that_does_not_suffice_is_an_error_and_not_a_longer_stream(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_length, "SAMPLE", 20)
    monkeypatch.setattr(stream_length, "_MARGIN", -0.3)
    bench.export(make_disk(tmp_path / "source", 10 * MIB, {0: noise(8 * MIB, 1)}))
    stream = announced(bench)
    sent: list[bytes] = []
    with pytest.raises(LengthExceeded, match="disk 0 compresses less") as caught:
        sent.extend(stream)
    assert "stored" in caught.value.remedy
    assert stream.length is not None
    assert sum(map(len, sent)) <= stream.length


@pytest.mark.parametrize("level", [1, 6, 9])
def test_a_grain_can_be_stretched_to_every_length(level: int) -> None:
    plain = text(GRAIN, 1)
    grain = compressed(5, plain, compressor(level))
    for length in range(length_of(grain), STORED + 1, 512):
        longer = stretched(grain, length)
        assert length_of(longer) == length
        head, data, padding = longer
        assert len(padding) < 512
        assert int.from_bytes(head[8:12], "little") == len(data)
        assert zlib.decompress(data) == plain
