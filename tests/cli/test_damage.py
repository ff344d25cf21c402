"""Damage in the repository, seen from outside: which code, which object, what to do, and what is still restorable."""

from __future__ import annotations

import filecmp
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import CHUNK, Done, Run

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda data: None,
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
}


@pytest.fixture
def two_machines(repository: Path, disk: Path, tmp_path: Path, failback: Run) -> Path:
    """`web`, and `other` on another disk, in one repository."""
    assert failback("export", "web", "--disk", disk).code == 0
    other = tmp_path / "other.img"
    other.write_bytes(random.Random(2).randbytes(3 * CHUNK + 1))
    assert failback("export", "other", "--disk", other).code == 0
    return other


def objects_of(repository: Path, name: str, kind: str) -> list[Path]:
    """Objects that a restore of the machine needs."""
    if kind == "manifests":
        return [repository / "manifests" / name / "0000000001"]
    from manifests.entry import PackTable
    from manifests.names import PointName, pack_key, page_key
    from pipeline.catalogue import resolve
    from pipeline.keys.locks import KeyFile
    from pipeline.repository import Repository
    from pipeline.store.directory import DirectoryStore
    from pipeline.transfer.index_reader import IndexReader

    opened = Repository.open(DirectoryStore(repository), lambda: [KeyFile(repository.parent / "key")])
    disk = resolve(opened, PointName(name, 1)).manifest.disks[0]
    packs = PackTable()
    reader = IndexReader(opened, disk, packs)
    if kind == "packs":
        assert list(reader.windows())
        return [repository / pack_key(pack) for pack in packs.ids]
    return [repository / page_key(i) for i in reader.objects() if i.hex() not in disk.packs]


def spoil(path: Path, data: bytes | None) -> None:
    path.chmod(0o600)
    path.unlink() if data is None else path.write_bytes(data)


def said(done: Done, code: int, name: str) -> None:
    assert done.code == code, done.err
    lines = done.err.splitlines()
    assert len(lines) == 2, "what is wrong, and what to do"
    assert name in lines[0]
    assert lines[1].startswith("  ")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["packs", "pages", "manifests"])
def test_5_damage_is_named_the_target_is_not_whole_and_all_else_is_restorable(
    repository: Path, disk: Path, two_machines: Path, tmp_path: Path, kind: str, damage: str, failback: Run
) -> None:
    out = tmp_path / "out"
    for path in objects_of(repository, "web", kind):
        good = path.read_bytes()
        spoil(path, DAMAGES[damage](good))
        done = failback("import", "web@1", "--out", out)
        if kind == "manifests" and damage == "gone":
            said(done, 3, "web")
        else:
            said(done, 5, path.name)
        stage = out / ".failback" / "web-disk0.raw" / "stage.json"
        assert not stage.exists() or json.loads(stage.read_bytes())["state"] != "staged"
        if kind != "manifests":
            read = failback("verify", "web@1", "--read")
            assert read.code == 8
            assert path.name in read.out + read.err
            listed = failback("verify", "web@1")
            assert listed.code == (8 if damage == "gone" or (kind == "packs" and damage != "flipped") else listed.code)
        assert failback("import", "other", "--out", tmp_path / "other-out").code == 0
        assert filecmp.cmp(two_machines, tmp_path / "other-out" / "other-disk0.raw", shallow=False)
        path.write_bytes(good)
        assert failback("import", "web@1", "--out", out).code == 0
        assert filecmp.cmp(disk, out / "web-disk0.raw", shallow=False)
        shutil.rmtree(out)


@pytest.mark.parametrize("damage", DAMAGES)
def test_5_a_damaged_repository_document_stops_everything_and_nothing_is_made_in_its_place(
    repository: Path, disk: Path, two_machines: Path, tmp_path: Path, damage: str, failback: Run
) -> None:
    path = repository / "repository.json"
    good = path.read_bytes()
    spoil(path, DAMAGES[damage](good))
    for command in (
        ("list",),
        ("import", "web", "--out", tmp_path / "out"),
        ("export", "web", "--disk", disk),
        ("verify", "web"),
        ("forget", "web@1", "--reason", "x", "--force"),
    ):
        said(failback(*command), 5, "repository.json")
    assert failback("repository", "init").code in (2, 5)
    assert path.exists() == (damage != "gone")
    path.write_bytes(good)
    assert failback("import", "web", "--out", tmp_path / "out").code == 0
    assert filecmp.cmp(disk, tmp_path / "out" / "web-disk0.raw", shallow=False)


@pytest.mark.parametrize("what", ["repository.json", "manifest", "feature"])
def test_5_what_a_newer_failback_wrote_is_told_apart_from_damage(
    repository: Path,
    disk: Path,
    two_machines: Path,
    tmp_path: Path,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    failback: Run,
) -> None:
    if what == "repository.json":
        path = repository / what
        spoil(path, path.read_bytes().replace(b'"format": 1', b'"format": 2'))
    elif what == "manifest":
        with monkeypatch.context() as patch:
            patch.setattr("manifests.envelope._VERSION", 2)
            assert failback("export", "newer", "--disk", disk).code == 0
    else:
        (repository / "features").mkdir()
        (repository / "features" / "something-new").write_bytes(b"")
    done = failback("import", "newer" if what == "manifest" else "web", "--out", tmp_path / "out")
    assert done.code == 5
    assert "upgrade failback" in done.err
    assert not (tmp_path / "out").exists()


def test_5_objects_of_another_repository_are_told_apart_from_damage(
    repository: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failback: Run
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    foreign = tmp_path / "foreign"
    monkeypatch.setenv("FAILBACK_REPOSITORY", str(foreign))
    assert failback("repository", "init").code == 0
    shutil.copytree(repository / "manifests", foreign / "manifests")
    for command in (("show", "web"), ("import", "web", "--out", tmp_path / "out"), ("export", "web", "--disk", disk)):
        done = failback(*command)
        assert done.code == 5
        assert "belongs to repository" in done.err


def test_a_stage_of_another_repository_is_hashed_and_not_believed(
    repository: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, int], None],
    failback: Run,
) -> None:  # fmt: skip
    """The same address, the same machine, the same number: and yet another disk."""
    out = tmp_path / "out"
    assert failback("export", "web", "--disk", disk).code == 0
    assert failback("import", "web", "--out", out).code == 0
    shutil.rmtree(repository)
    assert failback("repository", "init").code == 0
    change(disk, 4)
    assert failback("export", "web", "--disk", disk).code == 0
    done = failback("import", "web", "--out", out, "--json")
    assert done.result["disks"][0]["mode"] == "hashed"
    assert filecmp.cmp(disk, out / "web-disk0.raw", shallow=False)
