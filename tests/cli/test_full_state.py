"""The folder that remembers is full or cannot be written: the command says which, and nothing is taken for whole."""

from __future__ import annotations

import filecmp
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbd.tools import loop, needs_root, run, small_disk

from cli.conftest import Done, Run

pytestmark = needs_root
MIB = 1 << 20
SIZE = 32 * MIB


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder with 1 MiB of room."""
    with small_disk(tmp_path / "small", 1) as place:
        monkeypatch.setenv("FAILBACK_STATE_DIR", str(place))
        yield place


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.img"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


def fill(place: Path, spare: int = 0) -> Path:
    """Take all room but `spare` bytes."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(file.tell() - spare, 0))
    return ballast


def said(done: Done, code: int, place: Path) -> None:
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    *log, what, remedy = done.err.splitlines()
    assert len(log) <= 1, "that the log is not written is told at most once"
    assert str(place) in what
    assert "make room there" in remedy.lower() or "can be written" in remedy


@pytest.mark.parametrize("spare", [0, 4096, 12288])
def test_1_an_export_without_room_for_its_state(
    repository: Path, large: Path, state: Path, tmp_path: Path, spare: int, process: Run
) -> None:
    ballast = fill(state, spare)
    said(process("export", "web", "--disk", large), 1, state)
    assert not (repository / "manifests").exists()
    ballast.unlink()
    assert process("export", "web", "--disk", large).code == 0
    assert process("verify", "web", "--read").code == 0
    fill(state)
    with large.open("r+b") as file:
        file.write(b"changed")
    said(process("export", "web", "--disk", large), 1, state)
    assert process("list", "web", "--json").result["points"][-1]["point"] == "web@1"


def test_7_an_import_onto_a_device_without_room_for_its_state(
    repository: Path, large: Path, state: Path, tmp_path: Path, process: Run
) -> None:
    assert process("export", "web", "--disk", large).code == 0
    ballast = fill(state)
    target = tmp_path / "target"
    target.write_bytes(bytes(SIZE))
    with loop(target) as device:
        place = ("import", "web", "--device", f"0={device}:size={SIZE}")
        said(process(*place), 7, state)
        ballast.unlink()
        assert process(*place).code == 0
        run("blockdev", "--flushbufs", device)
        assert Path(device).read_bytes() == large.read_bytes()


def test_7_a_folder_of_disks_without_room(repository: Path, large: Path, tmp_path: Path, process: Run) -> None:
    assert process("export", "web", "--disk", large).code == 0
    with small_disk(tmp_path / "target", 34) as out:
        ballast = out / "ballast"
        ballast.write_bytes(bytes(8 * MIB))
        for _ in range(2):
            said(process("import", "web", "--out", out), 7, out)
        ballast.unlink()
        done = process("import", "web", "--out", out, "--json")
        assert done.code == 0, done.err
        assert done.result["disks"][0]["mode"] == "full"
        assert filecmp.cmp(large, out / "web-disk0.raw", shallow=False)


def test_a_state_folder_that_became_read_only(
    repository: Path, large: Path, state: Path, tmp_path: Path, process: Run
) -> None:
    assert process("export", "web", "--disk", large).code == 0
    run("mount", "-o", "remount,ro", state)
    said(process("export", "web", "--disk", large), 1, state)
    done = process("import", "web", "--out", tmp_path / "out")
    assert done.code == 0, "disks keep what is known of them beside them"
    assert len([line for line in done.err.splitlines() if "cannot be written" in line]) == 1
    assert process("list").code == 0


def test_4_a_repository_folder_that_is_full(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: Run
) -> None:
    with small_disk(tmp_path / "store", 80) as place:
        monkeypatch.setenv("FAILBACK_REPOSITORY", str(place / "repository"))
        assert process("repository", "init").code == 0
        ballast = fill(place, 20 * MIB)
        done = process("export", "web", "--disk", large)
        assert done.code == 4
        assert "No space left" in done.err
        assert "free space" in done.err
        assert process("list", "web").code == 3
        ballast.unlink()
        assert process("export", "web", "--disk", large).code == 0
        assert process("verify", "web", "--read").code == 0
