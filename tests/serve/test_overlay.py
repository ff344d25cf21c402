"""What a guest wrote is there again: after a kill all of it, after a power cut at least what was flushed."""

from __future__ import annotations

import errno
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transfer.killing import in_child, kill_at
from transfer.support import MIB, noise

from pipeline.errors import TargetError, TargetFull, TargetMismatch
from pipeline.serve.overlay import BLOCK, Overlay, OverlayHead, open_overlay, remove_overlay
from pipeline.writers.raw import RawWriter

SIZE = 3 * MIB + 1000
HEAD = OverlayHead(1, "r" * 32, "vm", 3, 0, "d" * 64, SIZE, BLOCK)
BASE = noise(SIZE, "base")


def base(offset: int, view: memoryview) -> None:
    view[:] = BASE[offset : offset + view.nbytes]


def seen(overlay: Overlay) -> bytes:
    """The disk as a guest sees it."""
    data = bytearray(BASE)
    for low, high, written in overlay.runs(0, SIZE):
        if written:
            overlay.read_into(low, memoryview(data)[low:high])
    return bytes(data)


def other_boot(state: Path) -> None:
    """As if the machine had started anew."""
    (state / "overlay" / "boot").write_text("another kernel\n")


def test_a_write_of_any_size_at_any_place_is_seen_with_the_point_around_it(tmp_path: Path) -> None:
    overlay, model = open_overlay(tmp_path, HEAD), bytearray(BASE)
    draw = random.Random(4)
    for turn in range(300):
        offset = draw.randrange(SIZE)
        length = min(draw.choice([1, 511, 512, 4096, 8192, 70_000]), SIZE - offset)
        if turn % 5:
            data = draw.randbytes(length)
            overlay.write(offset, data, base)
        else:
            data = bytes(length)
            overlay.zero(offset, length, base)
        model[offset : offset + length] = data
        assert seen(overlay) == model, (turn, offset, length)
    overlay.close()


def test_whole_blocks_need_nothing_of_the_point(tmp_path: Path) -> None:
    overlay = open_overlay(tmp_path, HEAD)

    def refuse(offset: int, view: memoryview) -> None:
        raise AssertionError(f"{view.nbytes} bytes of the point at {offset}")

    overlay.write(BLOCK, noise(5 * BLOCK, 1), refuse)
    overlay.zero(BLOCK * 100, 7 * BLOCK, refuse)
    overlay.write(SIZE - 1000, b"e" * 1000, refuse)  # the last block ends with the disk
    overlay.write(BLOCK + 7, b"x", refuse)  # written already
    overlay.close()


def test_acknowledged_writes_survive_a_kill_without_a_flush(tmp_path: Path) -> None:
    overlay = open_overlay(tmp_path, HEAD)
    overlay.write(10, b"flushed", base)
    overlay.flush()

    def write_more() -> None:
        mine = open_overlay(tmp_path, HEAD)
        mine.write(MIB, b"not flushed", base)
        mine.zero(2 * MIB, 100_000, base)
        os._exit(0)

    overlay.close()
    in_child(write_more)
    expected = bytearray(BASE)
    expected[10:17] = b"flushed"
    expected[MIB : MIB + 11] = b"not flushed"
    expected[2 * MIB : 2 * MIB + 100_000] = bytes(100_000)
    again = open_overlay(tmp_path, HEAD)
    assert seen(again) == expected
    again.flush()  # also what the killed one had not flushed
    again.close()
    other_boot(tmp_path)
    assert seen(open_overlay(tmp_path, HEAD)) == expected


def test_after_a_power_cut_only_what_was_flushed_is_believed(tmp_path: Path) -> None:
    overlay = open_overlay(tmp_path, HEAD)
    overlay.write(0, b"a" * BLOCK, base)
    overlay.flush()
    overlay.write(MIB, b"b" * BLOCK, base)
    overlay.close()
    other_boot(tmp_path)
    # The cut took the data of the second write, though its bit had reached the disk.
    with (tmp_path / "overlay" / "data").open("r+b") as file:
        file.seek(MIB)
        file.write(bytes(BLOCK))
    again = open_overlay(tmp_path, HEAD)
    assert seen(again) == b"a" * BLOCK + BASE[BLOCK:]
    again.write(2 * MIB, b"c" * BLOCK, base)
    again.close()
    reopened = open_overlay(tmp_path, HEAD)  # the same boot: now `live` counts
    assert seen(reopened)[2 * MIB : 2 * MIB + BLOCK] == b"c" * BLOCK


def test_the_data_is_synchronised_before_its_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay = open_overlay(tmp_path, HEAD)
    order: list[str] = []
    durable = tmp_path / "overlay" / "durable"
    real_flush, real_sync = RawWriter.flush, os.fdatasync
    monkeypatch.setattr(
        RawWriter, "flush", lambda self: (order.append(f"data {any(durable.read_bytes())}"), real_flush(self))[1]
    )
    monkeypatch.setattr("os.fdatasync", lambda fd: (order.append("sync"), real_sync(fd))[1])
    overlay.write(0, b"a" * BLOCK, base)
    overlay.flush()
    assert order[0] == "data False"
    assert order[-1] == "sync"
    assert durable.read_bytes()[0] == 1
    order.clear()
    overlay.write(0, b"b" * BLOCK, base)  # no new bit: only the data
    overlay.flush()
    assert order[0] == "data True"
    assert order.count("sync") <= 1


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5])
def test_killed_at_any_system_call_it_opens_again_with_all_that_was_acknowledged(tmp_path: Path, nth: int) -> None:
    def work() -> None:
        overlay = open_overlay(tmp_path, HEAD)
        patch = pytest.MonkeyPatch()
        kill_at(patch, [(os, "pwrite"), (os, "pwritev"), (os, "fdatasync"), (os, "fsync")], nth)
        for number in range(8):
            overlay.write(number * MIB // 4, bytes([65 + number]) * (BLOCK + 100), base)
            (tmp_path / "acknowledged").write_text(str(number + 1))
            overlay.flush()

    assert in_child(work)
    done = int((tmp_path / "acknowledged").read_text()) if (tmp_path / "acknowledged").exists() else 0
    data = seen(open_overlay(tmp_path, HEAD))
    expected = bytearray(BASE)
    for number in range(done):
        at = number * MIB // 4
        expected[at : at + BLOCK + 100] = bytes([65 + number]) * (BLOCK + 100)
    # The write that was cut off may be there, block by block; nothing else may differ.
    low, high = done * MIB // 4, done * MIB // 4 + 2 * BLOCK
    assert data[:low] + data[high:] == bytes(expected[:low] + expected[high:])
    new = bytes([65 + done]) * (BLOCK + 100) + BASE[low + BLOCK + 100 : high]
    for at in range(0, 2 * BLOCK, BLOCK):
        assert data[low + at : low + at + BLOCK] in (new[at : at + BLOCK], BASE[low + at : low + at + BLOCK])


@pytest.mark.parametrize("nth", range(1, 8))
def test_killed_while_it_is_made_it_is_made_anew(tmp_path: Path, nth: int) -> None:
    def make() -> None:
        kill_at(pytest.MonkeyPatch(), [(os, "fsync"), (os, "ftruncate"), (Path, "rename"), (Path, "replace")], nth)
        open_overlay(tmp_path, HEAD).close()

    in_child(make)
    overlay = open_overlay(tmp_path, HEAD)
    assert seen(overlay) == BASE
    overlay.write(5, b"works", base)
    assert seen(overlay)[5:10] == b"works"
    assert {p.name for p in tmp_path.iterdir()} <= {"overlay"}


@pytest.mark.parametrize("nth", [1, -1, 2, -2])
def test_killed_while_it_is_dropped_it_is_there_whole_or_gone(tmp_path: Path, nth: int) -> None:
    overlay = open_overlay(tmp_path, HEAD)
    overlay.write(0, b"guest", base)
    overlay.close()

    def remove() -> None:
        kill_at(pytest.MonkeyPatch(), [(Path, "rename"), (os, "fsync"), (os, "unlink")], nth)
        remove_overlay(tmp_path)

    in_child(remove)
    assert seen(open_overlay(tmp_path, HEAD)) in (b"guest" + BASE[5:], BASE)
    remove_overlay(tmp_path)
    assert not (tmp_path / "overlay").exists()


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay = open_overlay(tmp_path, HEAD)
    overlay.write(0, b"kept" * 1024, base)
    real = os.pwrite

    def full(fd: int, data: Any, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.pwrite", full)  # of the map
    with pytest.raises(TargetFull, match="no room left"):
        overlay.write(MIB, b"new!" * 1024, base)
    monkeypatch.setattr("os.pwrite", real)
    overlay.write(MIB, b"next" * 1024, base)  # notes what the failed one did not
    overlay.close()
    expected = bytearray(BASE)
    expected[:4096], expected[MIB : MIB + 4096] = b"kept" * 1024, b"next" * 1024
    assert seen(open_overlay(tmp_path, HEAD)) == expected


def test_a_failed_flush_fails_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay = open_overlay(tmp_path, HEAD)
    overlay.flush()
    overlay.write(0, b"a" * BLOCK, base)

    def broken(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("os.fdatasync", broken)
        with pytest.raises(TargetError):
            overlay.flush()
    with pytest.raises(TargetError):
        overlay.flush()


def test_an_overlay_of_another_point_is_refused_and_kept(tmp_path: Path) -> None:
    open_overlay(tmp_path, HEAD).close()
    with pytest.raises(TargetMismatch, match=r"wrote on vm@3 disk 0, not on vm@4 disk 0"):
        open_overlay(tmp_path, replace(HEAD, sequence=4, digest="e" * 64))
    open_overlay(tmp_path, HEAD).close()


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"format": 1', json.dumps({"format": "1"})])
def test_a_damaged_head_is_refused_and_nothing_is_removed(tmp_path: Path, damage: str) -> None:
    open_overlay(tmp_path, HEAD).close()
    (tmp_path / "overlay" / "head.json").write_text(damage)
    with pytest.raises(TargetMismatch, match="damaged"):
        open_overlay(tmp_path, HEAD)
    assert (tmp_path / "overlay" / "data").stat().st_size == SIZE


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    open_overlay(tmp_path, HEAD).close()
    head = tmp_path / "overlay" / "head.json"
    head.write_text(head.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(TargetMismatch, match="another version"):
        open_overlay(tmp_path, HEAD)


def test_a_large_map_takes_memory_and_space_only_where_it_is_used(tmp_path: Path) -> None:
    head = replace(HEAD, size=4 << 40)
    overlay = open_overlay(tmp_path, head)
    overlay.write(3 << 40, b"z" * BLOCK, base)
    overlay.flush()
    overlay.close()
    used = sum(p.stat().st_blocks * 512 for p in (tmp_path / "overlay").iterdir())
    assert used < 1 << 20
    again = open_overlay(tmp_path, head)
    assert list(again.runs(3 << 40, (3 << 40) + 2 * BLOCK)) == [
        (3 << 40, (3 << 40) + BLOCK, True),
        ((3 << 40) + BLOCK, (3 << 40) + 2 * BLOCK, False),
    ]
