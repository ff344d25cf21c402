"""Every kind of failure has its exit code, and two lines on standard error."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Run
from pipeline.cli import exitcodes
from pipeline.errors import StoreUnavailable, TargetFull


def two_lines(text: str) -> bool:
    lines = text.splitlines()
    return len(lines) == 2 and lines[0].startswith("failback: ") and lines[1].startswith("  ")


@pytest.mark.parametrize("name", ["a/b", "..", "", " ", "a" * 300, "a\nb", "x\\y"])
def test_2_a_name_that_cannot_be_one(repository: Path, disk: Path, name: str, failback: Run) -> None:
    done = failback("export", name, "--disk", disk)
    assert done.code == 2
    assert two_lines(done.err)


@pytest.mark.parametrize("name", ["web@", "web@0", "web@-1", "web@x", "web@1@2", "web@99999999999"])
def test_2_a_point_that_cannot_be_one(repository: Path, name: str, failback: Run) -> None:
    for command in ("show", "verify"):
        assert failback(command, name).code == 2


@pytest.mark.parametrize(
    "name",
    ["Web Server 1", "größe", "数据库", ".hidden", "a.b_c-d", "%41", "~x", "!x", "...", "x" * 80, "ж" * 30],
)
def test_0_a_name_in_any_language(repository: Path, disk: Path, tmp_path: Path, name: str, failback: Run) -> None:
    assert failback("export", name, "--disk", disk).code == 0
    assert [m["machine"] for m in failback("list", "--json").result["machines"]] == [name]
    assert failback("import", name, "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out" / f"{name}-disk0.raw").read_bytes() == disk.read_bytes()
    assert failback("export", name, "--disk", disk).code == 0
    assert failback("forget", f"{name}@1", "--reason", "old").code == 0


@pytest.mark.parametrize("name", ["a/b", "..", "../../etc/x", "", "a" * 300, "a\0b"])
def test_a_name_that_cannot_be_one_is_refused_by_every_command(
    repository: Path, disk: Path, tmp_path: Path, name: str, failback: Run
) -> None:
    before = sorted(tmp_path.rglob("*"))
    for command in (
        ("export", name, "--disk", disk),
        ("import", name, "--out", tmp_path / "out"),
        ("verify", name),
        ("show", name),
        ("forget", f"{name}@1", "--reason", "x"),
        ("diff", f"{name}@1", f"{name}@2"),
        ("export", "web", "--disk", disk, "--base", f"{name}@1"),
    ):
        done = failback(*command)
        assert done.code == 2, command
        assert two_lines(done.err)
    assert [p for p in sorted(tmp_path.rglob("*")) if "state" not in p.parts] == [
        p for p in before if "state" not in p.parts
    ]


def test_disks_and_folders_of_any_name(repository: Path, disk: Path, tmp_path: Path, failback: Run) -> None:
    folder = tmp_path / "größe 数据 ;$(x)" / ("d" * 200)
    folder.mkdir(parents=True)
    odd = folder / "-disk, =:raw é\n.img"
    odd.write_bytes(disk.read_bytes())
    assert failback("export", "web", "--disk", odd).code == 0
    assert failback("import", "web", "--out", folder / "out", "--seed", odd).code == 0
    assert (folder / "out" / "web-disk0.raw").read_bytes() == disk.read_bytes()
    assert failback("verify", "web", "--disk", odd).code == 0
    done = failback("export", "web", "--disk", tmp_path / ("n" * 300))
    assert done.code == 6
    assert two_lines(done.err)


def test_2_no_repository_named(failback: Run) -> None:
    done = failback("list")
    assert done.code == 2
    assert "FAILBACK_REPOSITORY" in done.err


def test_2_no_repository_there(empty: Path, failback: Run) -> None:
    empty.mkdir()
    done = failback("list")
    assert done.code == 2
    assert "failback repository init" in done.err


def test_2_what_typer_refuses(process: Run) -> None:
    assert process("export").code == 2
    assert process("nonsense").code == 2
    assert process("list", "--nonsense").code == 2


def test_3_no_such_machine_or_point(repository: Path, disk: Path, tmp_path: Path, failback: Run) -> None:
    for arguments in (("show", "web"), ("list", "web"), ("verify", "web"), ("import", "web", "--out", tmp_path)):
        done = failback(*arguments)
        assert done.code == 3
        assert two_lines(done.err)
    failback("export", "web", "--disk", disk)
    assert failback("show", "web@2").code == 3
    assert failback("diff", "web@1", "web@2").code == 3


def test_4_the_store(repository: Path, monkeypatch: pytest.MonkeyPatch, failback: Run) -> None:
    def down(*_: object, **__: object) -> None:
        raise StoreUnavailable("the store is down")

    monkeypatch.setattr("pipeline.repository.Repository.open", down)
    done = failback("list")
    assert done.code == 4
    assert two_lines(done.err)


def test_5_a_damaged_manifest(repository: Path, disk: Path, failback: Run) -> None:
    failback("export", "web", "--disk", disk)
    [manifest] = (path for path in (repository / "manifests").rglob("*") if path.is_file())
    data = bytearray(manifest.read_bytes())
    data[-1] ^= 1
    manifest.chmod(0o600)
    manifest.write_bytes(data)
    done = failback("show", "web")
    assert done.code == 5
    assert manifest.name in done.err


def test_6_no_such_disk(repository: Path, tmp_path: Path, failback: Run) -> None:
    done = failback("export", "web", "--disk", tmp_path / "none.img")
    assert done.code == 6
    assert two_lines(done.err)


def test_7_the_target(
    repository: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failback: Run
) -> None:
    failback("export", "web", "--disk", disk)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "web-disk0.raw").write_text("something of the user's")
    done = failback("import", "web", "--out", tmp_path / "out")
    assert done.code == 7
    assert (tmp_path / "out" / "web-disk0.raw").read_text() == "something of the user's"

    def full(*_: object, **__: object) -> None:
        raise TargetFull("no space left")

    monkeypatch.setattr("importers.files.target.FilesImporter.stage", full)
    assert failback("import", "web", "--out", tmp_path / "other").code == 7


def test_70_a_bug(repository: Path, monkeypatch: pytest.MonkeyPatch, log: Callable[[], str], failback: Run) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr("pipeline.catalogue.machines", broken)
    done = failback("list")
    assert done.code == exitcodes.BUG
    assert two_lines(done.err)
    assert "Traceback" not in done.err
    assert "ZeroDivisionError: of all things" in log()
    assert "Traceback" in log()
    assert failback("list", "--json").result["error"]["kind"] == "Bug"


def test_a_reader_that_has_seen_enough_is_no_bug(repository: Path, disk: Path, failback: Run, process: Run) -> None:
    failback("export", "web", "--disk", disk)
    reading, writing = os.pipe()
    os.close(reading)
    import subprocess

    from cli.conftest import command

    done = subprocess.run(command("list"), stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == b""
