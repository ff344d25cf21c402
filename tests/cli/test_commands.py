"""Each command does what its help says."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import CHUNK, Run
from pipeline.cli.import_ import import_

Change = Callable[[Path, int], None]


def test_init_makes_a_repository_once(empty: Path, failback: Run) -> None:
    done = failback("repository", "init", "--chunk-size", 128)
    assert done.code == 0
    assert "made repository" in done.out
    info = failback("repository", "info", "--json").result
    assert (info["chunk_size"], info["machines"], info["format"]) == (128 << 10, 0, 1)
    assert info["abilities"]["conditional_put"] is True
    again = failback("repository", "init")
    assert again.code == 2
    assert "already a repository" in again.err


def test_init_refuses_an_impossible_chunk_size(empty: Path, failback: Run) -> None:
    assert failback("repository", "init", "--chunk-size", 100).code == 2


def test_probe_says_what_the_store_can_do(repository: Path, failback: Run) -> None:
    assert "yes create-only writes" in failback("repository", "probe").out
    assert failback("repository", "probe", "--json").result["abilities"]["ranged_get"] is True
    assert not list((repository / "probe").rglob("*clock*"))


def test_a_disk_goes_out_and_comes_back(repository: Path, disk: Path, tmp_path: Path, failback: Run) -> None:
    done = failback("export", "web", "--disk", disk)
    assert done.code == 0
    assert "web@1 is complete" in done.out
    assert 4 <= len(done.out.splitlines()) <= 8
    restore = next(line for line in done.out.splitlines() if "restore it with" in line)
    back = failback(*restore.partition("failback ")[2].replace("DIR", str(tmp_path / "out")).split())
    assert back.code == 0
    assert "web@1 is restored" in back.out
    assert filecmp.cmp(disk, tmp_path / "out" / "web-disk0.raw", shallow=False)


def test_an_incremental_sends_what_changed(repository: Path, disk: Path, change: Change, failback: Run) -> None:
    failback("export", "web", "--disk", disk)
    change(disk, 4)
    done = failback("export", "web", "--disk", disk, "--json").result
    assert done["point"] == "web@2"
    [only] = done["disks"]
    assert (only["mode"], only["chunks_new"]) == ("incremental", 1)
    assert only["unchanged"] == 19 * CHUNK


def test_a_dry_run_sends_nothing(repository: Path, disk: Path, failback: Run) -> None:
    done = failback("export", "web", "--disk", disk, "--dry-run")
    assert "an index that is not made in a dry run" in done.out
    assert "of index" not in done.out
    assert done.code == 0
    assert "nothing was sent" in done.out
    assert failback("list", "--json").result["machines"] == []


def test_full_says_that_it_was_asked_for(repository: Path, disk: Path, failback: Run) -> None:
    failback("export", "web", "--disk", disk)
    assert "asked for with --full" in failback("export", "web", "--disk", disk, "--full").out


def test_a_base_saves_sending(repository: Path, disk: Path, failback: Run) -> None:
    failback("export", "web", "--disk", disk)
    done = failback("export", "twin", "--disk", disk, "--base", "web@1", "--json").result
    assert done["disks"][0]["chunks_new"] == 0
    assert done["deduplicated"] == 20 * CHUNK


def test_an_export_says_what_it_sent_again(repository: Path, disk: Path, change: Change, failback: Run) -> None:
    failback("export", "web", "--disk", disk)
    for position in range(0, 28, 2):
        change(disk, position)
    promised = failback("export", "web", "--disk", disk, "--dry-run", "--json").result
    assert 6 * CHUNK <= promised["resent"] < promised["sent"]
    assert "sent again" in failback("export", "web", "--disk", disk).out
    done = failback("export", "web", "--disk", disk, "--json").result
    assert done["resent"] == done["disks"][0]["resent"] == 0


def test_list_shows_machines_and_points(repository: Path, disk: Path, tmp_path: Path, failback: Run) -> None:
    assert "no machine yet" in failback("list").out
    failback("export", "web", "--disk", disk)
    failback("export", "web", "--disk", disk, "--final", "--consistency", "application")
    failback("export", "db", "--disk", disk)
    assert [line.split()[0] for line in failback("list").out.splitlines()[1:]] == ["db", "web"]
    points = failback("list", "web")
    assert "application, final" in points.out
    report = tmp_path / "report.json"
    failback("list", "web", "--report", report)
    assert [p["point"] for p in json.loads(report.read_text())["points"]] == ["web@1", "web@2"]
    failback("list", "--report", f"file://{report}")
    assert [m["machine"] for m in json.loads(report.read_text())["machines"]] == ["db", "web"]


def test_show_tells_everything(repository: Path, disk: Path, failback: Run) -> None:
    failback("export", "web", "--disk", disk, "--cpus", 4, "--memory", "2G", "--serial", "S1", "--bus", "scsi")
    shown = failback("show", "web").out
    for word in ("web@1", "cpus         4", "2.00 GiB", "serial S1", "scsi", "digest"):
        assert word in shown
    assert failback("show", "web@1", "--json").result["machine"]["memory_bytes"] == 2 << 30


def test_diff_names_the_ranges(repository: Path, disk: Path, change: Change, failback: Run) -> None:
    failback("export", "web", "--disk", disk)
    for position in (4, 6, 7, 39):
        change(disk, position)
    failback("export", "web", "--disk", disk)
    expected = [[4 * CHUNK, CHUNK], [6 * CHUNK, 2 * CHUNK], [39 * CHUNK, CHUNK - 1000]]
    for pair in (("web@1", "web@2"), ("web@2", "web@1")):
        done = failback("diff", *pair, "--json").result
        assert done["disks"][0]["ranges"] == expected
        assert done["bytes"] == 4 * CHUNK - 1000
    assert "3 ranges" in failback("diff", "web@1", "web@2").out
    assert "no difference" in failback("diff", "web@1", "web@1").out


def test_diff_does_not_count_what_was_changed_back(repository: Path, disk: Path, failback: Run) -> None:
    before = disk.read_bytes()
    failback("export", "web", "--disk", disk)
    disk.write_bytes(before[:100] + b"x" + before[101:])
    failback("export", "web", "--disk", disk)
    disk.write_bytes(before)
    failback("export", "web", "--disk", disk)
    assert failback("diff", "web@1", "web@3", "--json").result["bytes"] == 0


def test_diff_says_when_disks_cannot_be_compared(repository: Path, disk: Path, failback: Run) -> None:
    failback("export", "web", "--disk", disk)
    failback("export", "web", "--disk", disk, "--chunk-size", 128)
    failback("export", "other", "--disk", disk)
    assert "cannot be compared" in failback("diff", "web@1", "web@2").out
    assert failback("diff", "web@1", "other@1", "--json").result["bytes"] == 0


def test_diff_of_a_resized_disk(repository: Path, disk: Path, failback: Run) -> None:
    failback("export", "web", "--disk", disk)
    with open(disk, "ab") as file:
        file.write(b"x" * (3 * CHUNK))
    failback("export", "web", "--disk", disk)
    [only] = failback("diff", "web@1", "web@2", "--json").result["disks"]
    assert only["ranges"] == [[39 * CHUNK, 4 * CHUNK - 1000]]


def test_forget_gives_up_a_point(repository: Path, disk: Path, failback: Run) -> None:
    failback("export", "web", "--disk", disk)
    refused = failback("forget", "web@1", "--reason", "test")
    assert refused.code == 2
    assert "last point" in refused.err
    failback("export", "web", "--disk", disk)
    assert failback("forget", "web@1", "--reason", "test").code == 0
    assert failback("show", "web@1").code == 3
    assert failback("forget", "web@1", "--reason", "test").code == 3
    assert failback("forget", "web@2", "--reason", "test", "--force").code == 0
    assert failback("list", "--json").result["machines"] == [{"machine": "web", "points": 0, "latest": None}]


@pytest.mark.parametrize("name", ["web", "web@latest"])
def test_forget_wants_a_number(repository: Path, name: str, failback: Run) -> None:
    assert failback("forget", name, "--reason", "test").code == 2


def test_verify_by_listing_and_reading(repository: Path, disk: Path, failback: Run) -> None:
    failback("export", "web", "--disk", disk)
    assert failback("verify", "web").code == 0
    assert failback("verify", "web", "--read").code == 0
    pack = next((repository / "packs").rglob("*/*"))
    pack.chmod(0o600)
    pack.unlink()
    done = failback("verify", "web")
    assert done.code == 8
    assert "NOT good" in done.out
    assert pack.name in done.out
    assert failback("verify", "web", "--read", "--json").result["problems"]
    assert pack.name in failback("verify", "web", "--quiet").err


def test_verify_a_disk(repository: Path, disk: Path, change: Change, failback: Run) -> None:
    failback("export", "web", "--disk", disk)
    assert failback("verify", "web", "--disk", disk).code == 0
    change(disk, 5)
    done = failback("verify", "web", "--disk", disk)
    assert done.code == 8
    assert f"{CHUNK} bytes at {5 * CHUNK}" in done.out


def test_verify_wants_the_number_of_one_of_several_disks(
    repository: Path, disk: Path, tmp_path: Path, failback: Run
) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(b"other" * 1000)
    failback("export", "web", "--disk", disk, "--disk", other)
    assert failback("verify", "web", "--disk", other).code == 2
    assert failback("verify", "web", "--disk", other, "--number", 1).code == 0
    assert failback("verify", "web", "--disk", other, "--number", 2).code == 2


def test_import_refreshes_and_plans(
    repository: Path, disk: Path, tmp_path: Path, change: Change, failback: Run
) -> None:
    failback("export", "web", "--disk", disk)
    assert failback("import", "web", "--out", tmp_path / "out", "--dry-run").code == 0
    assert not (tmp_path / "out").exists()
    failback("import", "web", "--to", "files", "--out", tmp_path / "out")
    change(disk, 8)
    failback("export", "web", "--disk", disk)
    done = failback("import", "web", "--out", tmp_path / "out", "--json").result
    assert done["point"] == "web@2"
    assert done["disks"][0]["mode"] == "refresh"
    assert done["written"] == CHUNK
    assert filecmp.cmp(disk, tmp_path / "out" / "web-disk0.raw", shallow=False)


def test_import_wants_a_known_place(repository: Path, disk: Path, tmp_path: Path, failback: Run) -> None:
    failback("export", "web", "--disk", disk)
    assert failback("import", "web").code == 2
    done = failback("import", "web", "--to", "moon", "--out", tmp_path / "out")
    assert done.code == 2
    assert "files" in done.err
    assert failback("import", "web", "--out", tmp_path / "out", "--format", "floppy").code == 2
    assert failback("import", "web", "--device", "/dev/null").code == 2
    assert failback("import", "web", "--device", "0=/dev/null").code == 2


def test_doctor_names_what_mends_it(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failback: Run
) -> None:
    assert failback("doctor").code == 11
    empty.mkdir()
    done = failback("doctor")
    assert done.code == 11
    assert "failback repository init" in done.out
    failback("repository", "init")
    done = failback("doctor", "--json")
    assert done.code == 0
    assert {"Python", "state folder", "repository", "clock"} <= {f["about"] for f in done.result["findings"]}
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("FAILBACK_STATE_DIR", str(blocked / "state"))
    done = failback("doctor", "--json")
    assert done.code == 11
    assert "state folder" in {f["about"] for f in done.result["findings"] if f["state"] == "bad"}


def test_help_of_every_command(failback: Run) -> None:
    assert failback("--help").code == 0
    assert failback("--version").out.startswith("failback ")
    for name in ("export", "import", "verify", "list", "show", "diff", "forget", "doctor", "repository init"):
        done = failback(*name.split(), "--help")
        assert done.code == 0
        assert "--repository" in done.out
    flowing = (import_.__doc__ or "").split("\n\n")
    assert len(flowing) == 2
    assert "\n" not in "".join(flowing), "a terminal breaks lines where it is full, not where the source does"


def test_a_damaged_newest_point_hides_no_other_and_a_full_export_begins_anew(
    repository: Path, disk: Path, tmp_path: Path, failback: Run
) -> None:
    for _ in range(2):
        assert failback("export", "web", "--disk", disk).code == 0
    manifest = repository / "manifests" / "web" / "0000000002"
    manifest.chmod(0o600)
    stored = bytearray(manifest.read_bytes())
    stored[200] ^= 1
    manifest.write_bytes(stored)
    refused = failback("export", "web", "--disk", disk)
    assert refused.code == 5
    assert "--full" in refused.err
    assert failback("export", "web", "--disk", disk, "--full").code == 0
    listed = failback("list", "web")
    assert "0000000002" in listed.err
    assert "web@1" in listed.out
    assert "web@3" in listed.out
    assert failback("import", "web@1", "--out", tmp_path / "out").code == 0


def test_of_two_disks_the_one_without_a_place_is_named(
    repository: Path, disk: Path, tmp_path: Path, failback: Run
) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(b"x" * 5000)
    assert failback("export", "web", "--disk", disk, "--disk", other).code == 0
    done = failback("import", "web", "--device", f"0={tmp_path}/device:size=1")
    assert done.code == 2
    assert "disk 1 of web@1 has no place to go" in done.err
    assert "--out" in done.err


def test_an_older_point_goes_into_the_same_place_by_its_difference(
    repository: Path, disk: Path, tmp_path: Path, change: Change, failback: Run
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    first = disk.read_bytes()
    change(disk, 3)
    assert failback("export", "web", "--disk", disk).code == 0
    out = tmp_path / "out"
    assert failback("import", "web", "--out", out).code == 0
    back = failback("import", "web@1", "--out", out, "--json").result
    assert back["disks"][0]["mode"] == "refresh"
    assert 0 < back["disks"][0]["seconds"] <= back["seconds"]
    assert (out / "web-disk0.raw").read_bytes() == first


def test_a_disk_comes_back_as_a_vmdk_stream(repository: Path, disk: Path, tmp_path: Path, failback: Run) -> None:
    failback("export", "web", "--disk", disk)
    done = failback("import", "web", "--out", tmp_path / "out", "--format", "vmdk-stream", "--json").result
    [made] = done["disks"]
    assert (made["target"], made["mode"]) == (str(tmp_path / "out" / "web-disk0.vmdk"), "full")
    assert Path(made["target"]).read_bytes()[:4] == b"KDMV"
    assert "unchanged" in failback("import", "web", "--out", tmp_path / "out", "--format", "vmdk-stream").out
