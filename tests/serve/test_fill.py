"""The stage is filled behind the guest's back, holds nothing of what it writes, and counts as a restored disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from transfer.killing import in_child, kill_at
from transfer.support import CHUNK, MIB, Workbench, allocated, make_disk, noise, poke

from manifests.sealing import HEADER_SIZE
from pipeline.errors import StoreUnavailable, TargetBusy, TargetFull, TargetMismatch
from pipeline.serve import fill as fill_module
from pipeline.serve import local as local_module
from pipeline.serve.fill import LARGE, MOST, SMALL, TARGET_SECONDS, Line
from pipeline.serve.finish import merge
from pipeline.serve.instant import Instant
from pipeline.serve.local import LocalStage, stage_of
from pipeline.store.directory import DirectoryStore
from pipeline.store.fault import Fail, FaultyStore, Rule
from pipeline.transfer import move as move_module
from pipeline.transfer.stage import Done
from serve.test_chunks import flipped, view_of
from serve.tools import PARTS, SIZE, Gate, content, exported, served


@pytest.fixture
def target(bench: Workbench) -> Path:
    """Where `import --to files` puts it."""
    return bench.restored()


def filled(bench: Workbench, target: Path, **options: Any) -> None:
    with served(bench, fill=target, **options) as instant:
        wait(instant)


def wait(instant: Instant) -> None:
    assert instant.fill is not None
    assert instant.fill.finished.wait(60)
    assert instant.fill.phase == "filled", instant.fill.problem


def stage_says(target: Path) -> str:
    return str(json.loads((stage_of(target).folder / "stage.json").read_text())["state"])


def test_the_stage_equals_the_point_whatever_the_guest_writes(bench: Workbench, target: Path) -> None:
    with served(bench, fill=target) as instant:
        for number in range(50):
            instant.disk.write(number * 2 * CHUNK % SIZE, noise(5000, number)[: SIZE - number * 2 * CHUNK % SIZE])
        instant.disk.zero(MIB, MIB)
        wait(instant)
        instant.disk.write(100, b"after it was filled")
        assert view_of(instant, 100, 19) == b"after it was filled"
    assert target.read_bytes() == content()
    assert stage_says(target) == "staged"
    assert allocated(target) < SIZE * 0.7  # holes stay holes


def test_a_filled_stage_is_what_an_import_finds_unchanged_and_refreshes(bench: Workbench, target: Path) -> None:
    filled(bench, target)
    (result,) = bench.restore()
    assert result.mode == "unchanged"
    poke(bench.root / "source.raw", 3 * MIB, noise(CHUNK, "new"))
    bench.export(bench.root / "source.raw")
    (result,) = bench.restore()
    assert result.mode == "refresh"
    assert target.read_bytes() == (bench.root / "source.raw").read_bytes()


def test_the_next_start_reads_the_filled_stage_alone(bench: Workbench, target: Path) -> None:
    filled(bench, target)
    gate = Gate(bench.store)
    with served(bench.through(gate), fill=target) as instant:
        assert instant.status.phase == "filled"
        assert view_of(instant, 0, SIZE) == content()
        assert instant.disk.try_read(0, memoryview(bytearray(SIZE)))
    assert not gate.ranges


def test_a_restored_disk_is_served_without_fetching(bench: Workbench, target: Path) -> None:
    bench.restore()
    gate = Gate(bench.store)
    with served(bench.through(gate), fill=target) as instant:
        assert view_of(instant, 0, SIZE) == content()
    assert not gate.ranges


def test_nothing_is_fetched_twice_by_guest_and_fill(bench: Workbench, target: Path) -> None:
    gate = Gate(bench.store)
    with served(bench.through(gate), fill=target) as instant:
        assert view_of(instant, 0, SIZE) == content()
        wait(instant)
    spans = sorted(gate.ranges)
    entries = bench.index().values()
    envelopes = HEADER_SIZE * len({pack for _c, pack, _o, _n in entries})  # their salts open the chunks
    assert sum(n for _key, _o, n in spans) == sum(n for _c, _p, _o, n in entries) + envelopes


def test_the_fill_does_not_ask_while_the_guest_waits(bench: Workbench, target: Path) -> None:
    gate = Gate(bench.store)
    with served(bench.through(gate), fill=target) as instant:
        assert instant.fill is not None
        with instant.chunks.traffic.guest():
            # The guest's own fetch goes through, whatever the background would like.
            assert view_of(instant, 0, 512) == content()[:512]
            assert not instant.chunks.traffic.wait_quiet(1.0)
            assert gate.threads
            assert not [name for name in gate.threads if name.startswith("fill")]
        wait(instant)
    assert [name for name in gate.threads if name.startswith("fill")]


def test_the_line_is_filled_only_as_far_as_answers_stay_quick() -> None:
    line = Line()
    for _ in range(200):
        line.answered(SMALL, TARGET_SECONDS / 3, used=False)
    assert line.window == 2 * SMALL  # an idle line tells nothing
    for _ in range(200):
        line.answered(LARGE, TARGET_SECONDS / 3, used=True)
    assert line.window == MOST
    line.answered(LARGE, 1.5 * TARGET_SECONDS, used=True)
    assert MOST / 2 < line.window < MOST
    for _ in range(50):
        line.answered(LARGE, 2 * TARGET_SECONDS, used=False)
    assert line.window == SMALL


def test_stopped_in_the_middle_it_goes_on_and_fetches_the_rest(
    bench: Workbench, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill_module, "SMALL", CHUNK)
    gate = Gate(bench.store)
    with served(bench.through(gate), fill=target) as instant:
        for _ in range(4):
            assert gate.asked.acquire(timeout=30)
        instant.disk.write(0, b"guest")
    first = len(gate.ranges)
    assert stage_says(target) == "staging"
    gate.ranges.clear()
    with served(bench.through(gate), fill=target) as instant:
        wait(instant)
        assert view_of(instant, 0, 5) == b"guest"
    assert 0 < first < 32
    assert sum(n for _k, _o, n in gate.ranges) < sum(n for _c, _p, _o, n in bench.index().values())
    assert target.read_bytes() == content()


def partly_filled(bench: Workbench, target: Path) -> None:
    """Noted as done: what the guest read."""
    gate = Gate(bench.store)
    with served(bench.through(gate), fill=target) as instant, instant.chunks.traffic.guest():
        view_of(instant, MIB, 10 * CHUNK)
        assert instant.fill is not None
        instant.chunks.local.acknowledge(now=True)  # type: ignore[union-attr]
        instant.fill._stop.set()


def test_an_import_goes_on_where_the_server_ended(bench: Workbench, target: Path) -> None:
    partly_filled(bench, target)
    gate = Gate(bench.store)
    (result,) = bench.through(gate).restore()
    assert (result.mode, "it goes on" in result.reason) == ("full", True)
    assert result.counters.written < (9 + 20 + 5) * CHUNK - 9 * CHUNK
    assert target.read_bytes() == content()


def test_the_server_goes_on_where_an_import_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manifests.pack.PACK_SIZE", 4 * CHUNK)
    monkeypatch.setattr(move_module, "_ACKNOWLEDGE_SECONDS", 0.0)
    bench = exported(Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True)))

    def killed() -> None:
        kill_at(pytest.MonkeyPatch(), [(Done, "save")], -3)
        bench.restore()

    assert in_child(killed)
    gate = Gate(bench.store)
    with served(bench.through(gate), fill=bench.restored()) as instant:
        wait(instant)
    assert sum(n for _k, _o, n in gate.ranges) < sum(n for _c, _p, _o, n in bench.index().values())
    assert bench.restored().read_bytes() == content()


@pytest.mark.parametrize("nth", [1, 2, 3, 5, 8, 13, 21, -1, -2, -3, -5, -8, -13])
def test_killed_at_any_write_the_same_start_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    monkeypatch.setattr("manifests.pack.PACK_SIZE", 4 * CHUNK)
    monkeypatch.setattr(local_module, "_ACKNOWLEDGE_SECONDS", 0.0)
    bench = exported(Workbench(tmp_path, DirectoryStore(tmp_path / "store", create=True)))
    target = bench.restored()

    def killed() -> None:
        kill_at(pytest.MonkeyPatch(), [(os, "pwritev"), (os, "replace"), (Path, "replace"), (Path, "unlink")], nth)
        with served(bench, fill=target) as instant:
            instant.disk.write(MIB, b"guest" * 1000)
            (tmp_path / "acknowledged").touch()
            wait(instant)

    in_child(killed)
    with served(bench, fill=target) as instant:
        if (tmp_path / "acknowledged").exists():
            assert view_of(instant, MIB, 5000) == b"guest" * 1000
        wait(instant)
    assert target.read_bytes() == content()
    assert stage_says(target) == "staged"


def test_an_older_stage_gives_what_it_still_has(bench: Workbench, target: Path) -> None:
    bench.restore()
    poke(bench.root / "source.raw", 10, b"changed")
    poke(bench.root / "source.raw", 4 * MIB, noise(CHUNK, "new"))
    with (bench.root / "source.raw").open("r+b") as file:
        file.seek(MIB)
        file.write(bytes(CHUNK))
    bench.export(bench.root / "source.raw")
    gate = Gate(bench.store)
    with served(bench.through(gate), fill=target) as instant:
        assert view_of(instant, 0, SIZE) == (bench.root / "source.raw").read_bytes()
        wait(instant)
        assert instant.chunks.counts.fetched <= 3 * CHUNK
    assert target.read_bytes() == (bench.root / "source.raw").read_bytes()
    assert bench.restore()[0].mode == "unchanged"


@pytest.mark.parametrize("whole", [True, False])
def test_a_stage_that_somebody_wrote_to_is_not_believed(bench: Workbench, target: Path, whole: bool) -> None:
    if whole:
        filled(bench, target)
    else:
        partly_filled(bench, target)
    poke(target, MIB + 3, b"vandal")
    with served(bench, fill=target) as instant:
        assert view_of(instant, MIB, 2 * CHUNK) == content()[MIB : MIB + 2 * CHUNK]
        wait(instant)
    assert target.read_bytes() == content()


def test_a_damaged_chunk_is_named_and_everything_else_is_filled(bench: Workbench, target: Path) -> None:
    flipped(bench, 5)
    with served(bench, fill=target) as instant:
        assert instant.fill is not None
        assert instant.fill.finished.wait(60)
        assert instant.fill.phase == "failed"
        assert "packs/" in instant.fill.problem
        assert instant.status.problem == instant.fill.problem
        assert view_of(instant, MIB, MIB) == content()[MIB : 2 * MIB]
    data = target.read_bytes()
    assert data[: 5 * CHUNK] + data[6 * CHUNK :] == content()[: 5 * CHUNK] + content()[6 * CHUNK :]
    assert stage_says(target) == "staging"


def test_a_store_that_is_gone_for_a_while_delays_the_fill(
    bench: Workbench, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill_module, "_RETRY_SECONDS", 0.01)
    store = FaultyStore(bench.store, [Rule(Fail(StoreUnavailable("down")), verb="get_range", nth=1, last=3)])
    with served(bench.through(store), fill=target) as instant:
        wait(instant)
        assert instant.fill is not None
        assert instant.fill.problem == ""
    assert target.read_bytes() == content()


def test_a_full_disk_ends_the_fill_and_not_the_guest(
    bench: Workbench, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: LocalStage, _position: int, _chunk: object) -> None:
        raise TargetFull("no room", remedy="make room")

    monkeypatch.setattr(LocalStage, "keep", full)
    with served(bench, fill=target) as instant:
        assert view_of(instant, 0, SIZE) == content()
        assert instant.fill is not None
        assert instant.fill.finished.wait(60)
        assert (instant.fill.phase, instant.fill.problem) == ("failed", "no room")
        assert view_of(instant, 0, SIZE) == content()
    monkeypatch.undo()
    filled(bench, target)


def test_a_disk_that_does_not_keep_what_is_written_is_found_out(
    bench: Workbench, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill_module, "_RETRY_SECONDS", 0.01)
    real = LocalStage.keep

    def forgetful(self: LocalStage, position: int, chunk: bytes) -> None:
        real(self, position, chunk if position != 3 else bytes(len(chunk)))

    with monkeypatch.context() as patch:
        patch.setattr(LocalStage, "keep", forgetful)
        with served(bench, fill=target) as instant:
            wait(instant)  # the proof fails, it is looked at again, and mended by the restore
    assert target.read_bytes() == content()


def test_foreign_files_are_refused_and_left_alone(bench: Workbench, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"precious")
    with pytest.raises(TargetMismatch, match="was not written by failback"), served(bench, fill=target):
        pass
    assert target.read_bytes() == b"precious"


def test_two_servers_of_one_guest_or_one_stage_are_refused(bench: Workbench, target: Path) -> None:
    with served(bench, fill=target) as instant:
        with pytest.raises(TargetBusy, match="is used by another server"), served(bench):
            pass
        with pytest.raises(TargetBusy), served(bench, state="other", fill=target):
            pass
        with pytest.raises(TargetBusy):
            bench.restore()
        wait(instant)
    filled(bench, target)


def test_a_disk_of_zeros_and_an_empty_one_are_filled(tmp_path: Path) -> None:
    for size in (0, 3 * MIB):
        bench = Workbench(tmp_path / str(size)) if (tmp_path / str(size)).mkdir() is None else None
        assert bench is not None
        bench.export(make_disk(tmp_path / str(size) / "source.raw", size))
        with served(bench, fill=bench.restored()) as instant:
            wait(instant)
            assert view_of(instant, 0, size) == bytes(size)
        assert bench.restored().read_bytes() == bytes(size)


def test_what_is_known_of_a_stage_is_kept_where_the_caller_wants_it(bench: Workbench, tmp_path: Path) -> None:
    place, known = tmp_path / "machine" / "disk0.raw", tmp_path / "machine" / "known" / "disk0"
    for _turn in range(2):
        with served(bench, fill=place, known=known) as instant:
            instant.disk.write(0, b"guest")
            wait(instant)
    assert {p.name for p in (tmp_path / "machine").iterdir()} == {"disk0.raw", "known"}
    assert json.loads((known / "stage.json").read_text())["state"] == "staged"
    with pytest.raises(TargetMismatch, match="not the filled stage"):
        merge(bench.root / "guest", place)
    assert merge(bench.root / "guest", place, known=known) == 4096
    assert place.read_bytes() == b"guest" + content()[5:]


def test_larger_chunks_are_served_and_filled(tmp_path: Path) -> None:
    bench = exported(Workbench(tmp_path, chunk_size=MIB))
    assert PARTS
    with served(bench, fill=bench.restored()) as instant:
        assert view_of(instant, 12345, 3 * MIB) == content()[12345 : 12345 + 3 * MIB]
        wait(instant)
    assert bench.restored().read_bytes() == content()
