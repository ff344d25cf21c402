"""The promises of `pipeline.writers.base`, kept by every writer."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from nbd.tools import own_servers, run

from pipeline.errors import TargetBusy, TargetMismatch
from pipeline.exporters.open import open_exporter
from pipeline.writers.base import BlockWriter
from writers.conftest import Target, read_back

MIB = 1024 * 1024
SIZE = 5 * MIB + 12_345


def scribble(writer: BlockWriter, truth: bytearray, seed: int, rounds: int = 120) -> None:
    source = random.Random(seed)
    for _ in range(rounds):
        start = source.randrange(len(truth))
        length = source.randint(0, min(source.choice([1, 600, 70_000, 900_000]), len(truth) - start))
        if source.random() < 0.35:
            writer.discard(start, length)
            truth[start : start + length] = bytes(length)
            continue
        data = source.randbytes(length)
        cuts = sorted(source.randint(0, length) for _ in range(source.randint(0, 4)))
        parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, length], strict=True)]
        writer.write(start, [parts[0], *map(bytearray, parts[1:2]), *(memoryview(part) for part in parts[2:])])
        truth[start : start + length] = data


def test_what_was_written_and_discarded_is_read_back_and_exported(target_of: Callable[[int], Target]) -> None:
    target = target_of(SIZE)
    writer = target.create()
    assert writer.size >= SIZE
    truth = bytearray(writer.size)
    for seed in range(3):
        scribble(writer, truth, seed)
        writer.flush()
        writer.drop_cache()
        assert read_back(writer, 0, writer.size) == truth
        position = 0
        for extent in writer.extents(0, writer.size):
            assert extent.offset == position
            position += extent.length
            if extent.zero:
                assert not any(truth[extent.offset : extent.offset + extent.length])
        assert position == writer.size
    writer.close()
    exporter = open_exporter(target.name)
    buffer = bytearray(exporter.size)
    exporter.read_into(0, memoryview(buffer))
    assert buffer == truth
    exporter.close()


def test_a_new_disk_reads_as_zeros_and_says_so(target_of: Callable[[int], Target], kind: str) -> None:
    target = target_of(SIZE)
    writer = target.create()
    assert writer.fresh == (kind not in ("loop", "loop4k", "nbd"))
    assert read_back(writer, 0, writer.size) == bytes(writer.size)
    writer.flush()
    writer.close()
    again = target.reopen()
    assert not again.fresh
    again.close()


def test_a_sparse_disk_takes_no_room_for_zeros(target_of: Callable[[int], Target], kind: str) -> None:
    target = target_of(64 * MIB)
    writer = target.create()
    writer.discard(0, 64 * MIB)
    writer.write(33 * MIB, [b"x" * 65_536])
    writer.flush()
    writer.close()
    assert target.file.stat().st_blocks * 512 < 12 * MIB


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513])
def test_small_and_odd_sizes_are_disks(target_of: Callable[[int], Target], kind: str, size: int) -> None:
    if size == 0 and kind.startswith("loop"):
        pytest.skip("no such device")
    target = target_of(size)
    writer = target.create()
    assert writer.size >= size
    writer.write(0, [b"y" * size])
    writer.discard(0, size // 2)
    writer.flush()
    rest = writer.size - size
    assert read_back(writer, 0, writer.size) == bytes(size // 2) + b"y" * (size - size // 2) + bytes(rest)
    writer.close()


def test_more_buffers_than_the_kernel_takes_at_once_are_written(target_of: Callable[[int], Target]) -> None:
    writer = target_of(MIB).create()
    parts = [bytes([index % 251]) * (index % 300) for index in range(3500)]
    data = b"".join(parts)
    writer.write(7, parts)
    assert read_back(writer, 7, len(data)) == data
    writer.write(0, [])
    writer.write(0, [b"", b""])
    writer.close()


def test_many_threads_write_at_once(target_of: Callable[[int], Target]) -> None:
    writer = target_of(16 * MIB).create()
    step = 65_536

    def work(index: int) -> None:
        if index % 3 == 0:
            writer.discard(index * step, step)
        else:
            writer.write(index * step, [bytes([index % 251 + 1]) * (step // 2)] * 2)
        if index % 40 == 0:
            writer.flush()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(256)))
    for index in range(256):
        expected = bytes(step) if index % 3 == 0 else bytes([index % 251 + 1]) * step
        assert read_back(writer, index * step, step) == expected
    writer.close()


def test_nothing_reaches_past_the_end(target_of: Callable[[int], Target]) -> None:
    writer = target_of(MIB).create()
    end = writer.size
    for offset, length in ((end, 1), (end - 1, 2), (-1, 1)):
        with pytest.raises(ValueError, match="past the end"):
            writer.write(offset, [bytes(length)])
        with pytest.raises(ValueError, match="past the end"):
            writer.discard(offset, length)
        with pytest.raises(ValueError, match="past the end"):
            writer.read_into(offset, memoryview(bytearray(length)))
    writer.close()


def test_the_guard_holds_until_somebody_else_writes(target_of: Callable[[int], Target], kind: str) -> None:
    target = target_of(8 * MIB)
    writer = target.create()
    writer.write(MIB, [b"a" * 65_536])
    writer.flush()
    guard = writer.guard()
    if kind == "nbd":
        assert writer.guard() != guard  # nobody can tell
        writer.close()
        return
    assert writer.guard() == guard
    writer.close()
    for _ in range(2):  # looking at it is no change
        exporter = open_exporter(target.name)
        exporter.read_into(0, memoryview(bytearray(65_536)))
        exporter.close()
        again = target.reopen()
        assert again.guard() == guard
        again.close()
    if kind in ("raw", "loop", "loop4k"):
        with open(target.name, "r+b") as foreign:
            foreign.seek(2 * MIB)
            foreign.write(b"b")
    else:
        run("qemu-io", "-f", kind, "-c", "write -P 9 2M 512", target.file)
    again = target.reopen()
    assert again.guard() != guard
    again.close()


def test_our_own_write_changes_the_guard(target_of: Callable[[int], Target]) -> None:
    target = target_of(8 * MIB)
    writer = target.create()
    writer.flush()
    guards = {writer.guard()}
    for index in range(3):
        writer.write(index * MIB, [b"a"])
        writer.flush()
        guards.add(writer.guard())
    assert len(guards) == 4
    writer.close()


def test_a_target_is_written_by_one_at_a_time(target_of: Callable[[int], Target], kind: str) -> None:
    if kind == "nbd":
        pytest.skip("an NBD server may have many clients")
    target = target_of(MIB)
    writer = target.create()
    with pytest.raises(TargetBusy) as caught:
        target.reopen()
    assert caught.value.remedy
    writer.close()
    target.reopen().close()


def test_an_existing_file_is_never_created_over(target_of: Callable[[int], Target], kind: str) -> None:
    if kind in ("loop", "loop4k", "nbd"):
        pytest.skip("not made by us")
    target = target_of(MIB)
    target.file.write_bytes(b"precious")
    with pytest.raises(TargetMismatch, match="exists already"):
        target.create()
    assert target.file.read_bytes() == b"precious"


def test_nothing_is_left_running_after_close_which_may_come_twice(target_of: Callable[[int], Target]) -> None:
    writer = target_of(MIB).create()
    writer.write(0, [b"x"])
    writer.close()
    writer.close()
    assert own_servers() == []
