"""Disks of a point become files, and a second import moves only what differs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from transfer.support import CHUNK, MIB, Workbench, allocated, make_disk, noise, poke, punch, same, text

from manifests.names import page_key
from pipeline.errors import (
    CorruptObject,
    StoreUnavailable,
    TargetBusy,
    TargetFull,
    TargetMismatch,
    VerifyError,
)
from pipeline.progress import Counters
from pipeline.store.fault import Fail, FaultyStore, Rule, startswith
from pipeline.transfer import local
from pipeline.transfer import move as move_module
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.stage import Stage
from pipeline.writers.raw import RawWriter

SIZE = 6 * MIB + 1000
needs_qemu = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")


def source_of(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "source", SIZE, {0: text(MIB, 1), 2 * MIB: noise(2 * MIB, 2), SIZE - 500: b"tail"})


@pytest.fixture
def two_points(bench: Workbench, tmp_path: Path) -> tuple[Path, Path]:
    """Sources as they were at point 1 and point 2."""
    source = source_of(tmp_path)
    bench.export(source)
    first = tmp_path / "first"
    shutil.copy(source, first)
    poke(source, 3 * CHUNK, noise(100, 3))
    poke(source, 5 * MIB, noise(2 * CHUNK, 4))
    punch(source, 2 * MIB, 3 * CHUNK)
    bench.export(source)
    return first, source


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.stat().st_size, p.read_bytes())
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def stage_file(bench: Workbench, name: str = "stage.json", image_format: str = "raw") -> Path:
    return bench.out / ".failback" / f"vm-disk0.{image_format}" / name


def test_a_second_import_of_the_same_point_moves_nothing(bench: Workbench, two_points: tuple[Path, Path]) -> None:
    bench.restore()
    before = bench.restored().stat().st_mtime_ns
    [done] = bench.restore()
    assert (done.mode, done.counters.read, done.counters.written) == ("unchanged", 0, 0)
    assert done.reason == "the target holds vm@2", "not also that it equals itself"
    assert bench.restored().stat().st_mtime_ns == before


@pytest.mark.parametrize("image_format", ["raw", pytest.param("qcow2", marks=needs_qemu), "vmdk"])
@pytest.mark.parametrize("way", [(1, 2), (2, 1)])
def test_a_refresh_moves_only_the_difference(
    bench: Workbench, two_points: tuple[Path, Path], way: tuple[int, int], image_format: str, tmp_path: Path
) -> None:
    if image_format != "raw" and shutil.which("qemu-img") is None:
        pytest.skip("needs qemu-img")
    bench.restore(way[0], image_format=image_format)
    [done] = bench.restore(way[1], image_format=image_format)
    assert done.mode == "refresh", done.reason
    assert done.counters.written <= 8 * CHUNK
    path = bench.restored(image_format=image_format)
    if image_format != "raw":
        subprocess.run(["qemu-img", "convert", "-f", image_format, "-O", "raw", path, tmp_path / "raw"], check=True)
        path = tmp_path / "raw"
    assert path.read_bytes()[:SIZE] == two_points[way[1] - 1].read_bytes()
    [again] = bench.restore(way[1], image_format=image_format)
    assert again.mode == "unchanged", again.reason


def test_a_refresh_after_somebody_wrote_hashes_the_target(bench: Workbench, two_points: tuple[Path, Path]) -> None:
    bench.restore(1)
    poke(bench.restored(), 5 * MIB + 7 * CHUNK, b"foreign")
    poke(bench.restored(), 4 * CHUNK, b"foreign")
    [done] = bench.restore(2)
    assert done.mode == "hashed"
    assert "somebody wrote" in done.reason
    assert done.counters.deduplicated > MIB
    assert same(two_points[1], bench.restored())
    poke(bench.restored(), 4 * CHUNK, b"foreign")
    [done] = bench.restore(2)
    assert done.mode == "hashed"
    assert done.counters.written == CHUNK
    assert same(two_points[1], bench.restored())


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_an_interrupted_refresh_goes_on(bench: Workbench, two_points: tuple[Path, Path], cut: int) -> None:
    bench.restore(1)
    rule = Rule(Fail(StoreUnavailable("cut")), verb="get_range", nth=cut, last=99)
    broken = bench.through(FaultyStore(bench.store, [rule]))
    try:
        broken.restore(2)
    except StoreUnavailable:
        [done] = bench.restore(2)
        assert done.mode == "hashed"
        assert "cut short" in done.reason
    assert same(two_points[1], bench.restored())
    assert bench.restore(2)[0].mode == "unchanged"


def test_an_interrupted_full_restore_fetches_nothing_twice_that_was_acknowledged(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manifests.pack.PACK_SIZE", 4 * CHUNK)
    source = make_disk(tmp_path / "source", 4 * MIB, {0: noise(4 * MIB, 1)})
    bench.export(source)
    monkeypatch.setattr(move_module, "_ACKNOWLEDGE_SECONDS", 0.0)
    first = FaultyStore(bench.store, [Rule(Fail(StoreUnavailable("cut")), verb="get_range", nth=8, last=999)])
    with pytest.raises(StoreUnavailable):
        bench.through(first).restore(parallel=1)
    second = FaultyStore(bench.store)
    [done] = bench.through(second).restore(parallel=1)
    assert done.mode == "full"
    assert "goes on" in done.reason
    fetched = [key for verb, key in second.history if verb == "get_range"]
    succeeded = [key for verb, key in first.history if verb == "get_range"][:7]
    assert len(set(fetched) & set(succeeded)) <= 3, "only what was on its way when it ended"
    assert same(source, bench.restored())


def json_damages() -> list[Callable[[bytes], bytes]]:
    return [
        lambda b: b"",
        lambda b: b[: len(b) // 2],
        lambda b: b"[1, 2]",
        lambda b: b"null",
        lambda b: b.replace(b'"machine": "vm"', b'"machine": 5'),
        lambda b: b.replace(b'"machine": "vm"', b'"machine": "../vm"'),
        lambda b: b.replace(b'"sequence": 1', b'"sequence": 7'),
        lambda b: b.replace(b'"sequence": 1', b'"sequence": "x"'),
        lambda b: b.replace(b'"sequence": 1', b'"sequence": -1'),
        lambda b: b.replace(b'"guard": "file', b'"guard": "life'),
        lambda b: b.replace(b'"digest": "', b'"digest": "0'),
        lambda b: b.replace(b'"staged"', b'"stoned"'),
        lambda b: b.replace(b'"chunk_size": 65536', b'"chunk_size": 65537'),
        lambda b: b.replace(b'"size": 6', b'"size": 7'),
        lambda b: b.replace(b'"number": 0', b'"number": 3'),
        lambda b: b"\xff" + b,
    ]


@pytest.mark.parametrize("damage", json_damages())
def test_a_damaged_stage_document_leads_to_hashing(
    bench: Workbench, two_points: tuple[Path, Path], damage: Callable[[bytes], bytes]
) -> None:
    bench.restore(1)
    path = stage_file(bench)
    changed = damage(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    [done] = bench.restore(2)
    assert done.mode in ("hashed", "refresh")
    assert same(two_points[1], bench.restored())


@pytest.mark.parametrize("part", ["rows", "nodes", "leaves", "places", "packs", "head"])
@pytest.mark.parametrize("how", ["lost", "flipped"])
def test_a_damaged_copy_of_the_index_leads_to_hashing(
    bench: Workbench, two_points: tuple[Path, Path], part: str, how: str
) -> None:
    bench.restore(1)
    path = stage_file(bench, "copy") / part
    data = bytearray(path.read_bytes())
    path.unlink()
    if how == "flipped":
        data[48 * 3 if part == "rows" else 3] ^= 1
        path.write_bytes(data)
    [done] = bench.restore(2)
    assert done.mode == "hashed"
    assert same(two_points[1], bench.restored())


def test_a_point_that_is_gone_from_the_repository_leads_to_hashing(
    bench: Workbench, two_points: tuple[Path, Path]
) -> None:
    bench.restore(1)
    bench.store.delete_many(["manifests/vm/0000000001"])
    [done] = bench.restore(2)
    assert done.mode == "hashed"
    assert "no longer in the repository" in done.reason
    assert same(two_points[1], bench.restored())


@pytest.mark.parametrize("kind", ["same", "differing", "smaller", "larger", "empty"])
def test_a_seed_of_every_kind_gives_what_it_has(bench: Workbench, tmp_path: Path, kind: str) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    seed = tmp_path / "seed"
    shutil.copy(source, seed)
    if kind == "differing":
        poke(seed, 100, b"differs")
        punch(seed, 3 * MIB, CHUNK)
    elif kind == "smaller":
        os.truncate(seed, 3 * MIB + 5)
    elif kind == "larger":
        with seed.open("ab") as file:
            file.write(b"more" * CHUNK)
    elif kind == "empty":
        os.truncate(seed, 0)
    before = seed.read_bytes()
    [done] = bench.restore(seeds=(str(seed),))
    assert same(source, bench.restored())
    assert seed.read_bytes() == before
    data = 16 + 32 + 1
    expected = {"same": 0, "differing": 2, "smaller": 16 + 1, "larger": 1, "empty": data}[kind]
    assert -(-done.counters.written // CHUNK) <= expected
    assert allocated(bench.restored()) <= 1.02 * allocated(source) + 4096


def test_a_foreign_file_is_never_overwritten(bench: Workbench, two_points: tuple[Path, Path]) -> None:
    bench.out.mkdir()
    bench.restored().write_bytes(b"precious")
    with pytest.raises(TargetMismatch, match="was not written by failback") as caught:
        bench.restore()
    assert "--seed" in caught.value.remedy
    assert bench.restored().read_bytes() == b"precious"
    assert list(bench.out.iterdir()) == [bench.restored()]


def test_a_dry_run_writes_nothing(bench: Workbench, two_points: tuple[Path, Path], tmp_path: Path) -> None:
    [dry] = bench.restore(dry_run=True)
    assert not bench.out.exists()
    assert dry.to_move > 2 * MIB
    [done] = bench.restore(1)
    before = tree(bench.out)
    [dry] = bench.restore(2, dry_run=True)
    assert tree(bench.out) == before
    assert dry.mode == "refresh"
    assert 0 < dry.to_move < 4 * CHUNK
    assert bench.restore(1, dry_run=True)[0].to_move == 0
    larger = tmp_path / "larger"
    shutil.copy(two_points[1], larger)
    with larger.open("ab") as file:
        file.write(b"grown")
    bench.export(larger)
    bench.restore(3, dry_run=True)
    assert tree(bench.out) == before
    assert done.mode == "full"


@needs_qemu
@pytest.mark.parametrize("image_format", ["qcow2", "vmdk"])
def test_a_dry_run_leaves_an_image_as_it_is(bench: Workbench, two_points: tuple[Path, Path], image_format: str) -> None:
    bench.restore(1, image_format=image_format)
    before = tree(bench.out)
    assert bench.restore(2, image_format=image_format, dry_run=True)[0].mode == "refresh"
    assert {n: (s, d) for n, (_, s, d) in tree(bench.out).items()} == {n: (s, d) for n, (_, s, d) in before.items()}


@pytest.mark.parametrize("size", [SIZE + MIB, SIZE - 1, MIB + 3, 0])
def test_a_disk_of_another_size_is_refreshed_in_place(bench: Workbench, tmp_path: Path, size: int) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    bench.restore()
    os.truncate(source, size)
    if size > SIZE:
        poke(source, size - 3, b"new")
    bench.export(source)
    [done] = bench.restore()
    assert done.mode == "hashed"
    assert same(source, bench.restored())
    [done] = bench.restore()
    assert done.mode == "unchanged"


def pack_of(bench: Workbench) -> str:
    [info] = bench.store.list("packs/")
    return info.key


@pytest.mark.parametrize("where", [0.0, 0.01, 0.2, 0.5, 0.8, 0.97, 0.999])
def test_a_corrupted_chunk_never_reaches_the_target(bench: Workbench, tmp_path: Path, where: float) -> None:
    data = noise(CHUNK, 1) + text(3 * CHUNK, 2) + noise(CHUNK, 3) + text(4 * CHUNK, 4)
    source = make_disk(tmp_path / "source", len(data), {0: data})
    bench.export(source)
    key = pack_of(bench)
    good = bytes(bench.store.get(key))
    for offset in range(int(where * len(good)), len(good), len(good) // 3):
        broken = bytearray(good)
        broken[offset] ^= 0x40
        bench.store.put(key, broken)
        # Before byte 64 are the salt and what is bound to every chunk.
        inside = offset < 64 or any(o <= offset < o + n for _c, _p, o, n in bench.index().values())
        if inside:
            with pytest.raises(CorruptObject, match=key) as caught:
                bench.restore()
            assert caught.value.remedy
            assert Stage(stage_file(bench).parent).state.state == "staging"  # type: ignore[union-attr]
        else:
            bench.restore()
        there, wanted = bench.restored().read_bytes(), source.read_bytes()
        for at in range(0, len(wanted), CHUNK):
            assert there[at : at + CHUNK] in (wanted[at : at + CHUNK], bytes(len(wanted[at : at + CHUNK])))
        shutil.rmtree(bench.out)
    bench.store.put(key, good)
    bench.restore()
    assert same(source, bench.restored())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", folder], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("cannot mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_target_disk_is_said_and_the_same_command_goes_on(
    bench: Workbench, tmp_path: Path, small_disk: Path
) -> None:
    source = source_of(tmp_path)
    bench.export(source)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2 * MIB))
    with pytest.raises(TargetFull) as caught:
        bench.restore(out=small_disk)
    assert caught.value.remedy
    with pytest.raises(TargetFull):
        bench.restore(out=small_disk)
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=12m", small_disk], check=True)
    [done] = bench.restore(out=small_disk)
    assert same(source, small_disk / "vm-disk0.raw")
    assert done.mode == "full"


def test_a_second_import_to_the_same_target_is_refused(bench: Workbench, two_points: tuple[Path, Path]) -> None:
    refused: list[str] = []

    def meanwhile(_counters: Counters) -> None:
        if not refused:
            for sequence in (1, 2):
                with pytest.raises(TargetBusy) as caught:
                    bench.restore(sequence)
                refused.append(str(caught.value))

    bench.restore(watch=meanwhile)
    assert refused
    assert same(two_points[1], bench.restored())
    assert bench.restore()[0].mode == "unchanged"


def test_a_second_import_is_refused_when_the_state_was_made_by_hand(
    bench: Workbench, two_points: tuple[Path, Path]
) -> None:
    bench.restore()
    stage = Stage(stage_file(bench).parent)
    stage.lock("it")
    try:
        with pytest.raises(TargetBusy):
            bench.restore()
    finally:
        stage.unlock()
    bench.restore()


@pytest.mark.parametrize("refresh", [False, True])
def test_a_target_that_lies_is_not_taken_for_whole(
    bench: Workbench, two_points: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, refresh: bool
) -> None:
    if refresh:
        bench.restore(1)
    honest = RawWriter.write

    def lose(self: RawWriter, offset: int, buffers: list[bytes]) -> None:
        if offset <= 3 * CHUNK < offset + sum(map(len, buffers)):
            buffers = [b"".join(map(bytes, buffers)).replace(bytes(buffers[0][:8]), b"\0" * 8, 1)]
        honest(self, offset, buffers)

    monkeypatch.setattr(RawWriter, "write", lose)
    with pytest.raises(VerifyError, match="does not read back what was written") as caught:
        bench.restore(2)
    assert caught.value.remedy
    state = Stage(stage_file(bench).parent).state
    assert state is not None
    assert state.state == "staging"
    monkeypatch.undo()
    [done] = bench.restore(2)
    assert done.mode == "hashed"
    assert same(two_points[1], bench.restored())


def test_what_a_lying_target_acknowledged_is_not_believed(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bits that say "written" are saved, the proof fails: the next run must write again."""
    monkeypatch.setattr("manifests.pack.PACK_SIZE", 4 * CHUNK)
    monkeypatch.setattr(move_module, "_ACKNOWLEDGE_SECONDS", 0.0)
    source = make_disk(tmp_path / "source", 2 * MIB, {0: noise(2 * MIB, 1)})
    bench.export(source)
    honest = RawWriter.write

    def lose(self: RawWriter, offset: int, buffers: list[bytes]) -> None:
        if offset:
            honest(self, offset, buffers)

    with monkeypatch.context() as patched:
        patched.setattr(RawWriter, "write", lose)
        with pytest.raises(VerifyError):
            bench.restore()
    bench.restore()
    assert same(source, bench.restored())


def test_a_restored_file_that_was_removed_is_restored_anew(bench: Workbench, two_points: tuple[Path, Path]) -> None:
    bench.restore()
    bench.restored().unlink()
    [done] = bench.restore(1)
    assert done.mode == "full"
    assert same(two_points[0], bench.restored())


def test_a_file_that_was_only_just_made_when_we_were_killed_is_made_again(
    bench: Workbench, two_points: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_args: object, **_more: object) -> None:
        make_disk(bench.restored(), 4096)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(local, "open_writer", killed)
        with pytest.raises(Killed):
            bench.restore()
    bench.restore()
    assert same(two_points[1], bench.restored())


def test_a_foreign_file_that_appears_while_ours_is_made_is_kept(
    bench: Workbench, two_points: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = local.open_writer

    def first_come(*args: object, **more: object) -> object:
        bench.restored().write_bytes(b"precious")
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(local, "open_writer", first_come)
    with pytest.raises(TargetMismatch):
        bench.restore()
    monkeypatch.undo()
    with pytest.raises(TargetMismatch, match="was not written by failback"):
        bench.restore()
    assert bench.restored().read_bytes() == b"precious"


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_index_stops_before_anything_is_taken_for_whole(
    bench: Workbench, two_points: tuple[Path, Path], damage: str
) -> None:
    disk = bench.disk(2)
    needed = {page_key(i) for i in IndexReader(bench.repository, disk).objects()} - {
        page_key(bytes.fromhex(i)) for i in disk.packs
    }
    for info in list(bench.store.list("pages/")):
        good = bytes(bench.store.get(info.key))
        if damage == "gone":
            bench.store.delete_many([info.key])
        else:
            bench.store.put(info.key, good[:-1] if damage == "cut" else good[:150] + b"\0\1" + good[152:])
        if info.key in needed:
            with pytest.raises(CorruptObject, match=info.key) as caught:
                bench.restore(2)
            assert caught.value.remedy
            state = Stage(stage_file(bench).parent).state
            assert state is None or state.state != "staged"
        else:
            bench.restore(2)
            assert same(two_points[1], bench.restored())
        bench.store.put(info.key, good)
        shutil.rmtree(bench.out)


def test_what_is_asked_wrongly_is_said_before_anything_is_made(
    bench: Workbench, two_points: tuple[Path, Path], tmp_path: Path
) -> None:
    wrong = [
        {"devices": {1: "/dev/null:size=1"}},
        {"image_format": "floppy"},
        {"devices": {0: "/dev/null"}},
        {"devices": {0: "/dev/null:size=abc"}},
        {"devices": {0: f"{tmp_path}/nothing:size=7"}},
        {"seeds": (str(tmp_path / "nothing"),)},
    ]
    for request in wrong:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which of the kinds does not matter
            bench.restore(**request)  # type: ignore[arg-type]
        assert caught.value.exit_code in (2, 6, 7, 11)  # type: ignore[attr-defined]
    assert not bench.out.exists()


def test_only_one_of_two_disks_fails_and_the_other_is_kept(bench: Workbench, tmp_path: Path) -> None:
    sources = [make_disk(tmp_path / f"s{i}", MIB, {0: noise(MIB, i)}) for i in range(2)]
    bench.export(*sources)
    lost = {pack for _c, pack, _o, _n in bench.index(number=1).values()}
    [pack] = lost
    rule = Rule(Fail(StoreUnavailable("cut")), verb="get_range", key=startswith(f"packs/{pack.hex()[:2]}/{pack.hex()}"))
    with pytest.raises(StoreUnavailable):
        bench.through(FaultyStore(bench.store, [rule])).restore()
    first, second = bench.restore()
    assert (first.mode, second.mode) == ("unchanged", "full")
    assert json.loads(stage_file(bench).read_bytes())["state"] == "staged"
    for number, source in enumerate(sources):
        assert same(source, bench.restored(number))
