"""Scrub, repair, salvage and copy as commands: what they say, how they end, and that they go on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from servers import Server

from cli.conftest import CHUNK, Run, command


def packs(place: Path) -> list[Path]:
    return sorted(p for p in (place / "packs").rglob("*") if p.is_file())


def hurt(path: Path) -> None:
    """One bit of a file that may be read-only."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def test_damage_is_found_named_repaired_and_gone(repository: Path, disk: Path, tmp_path: Path, failback: Run) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    mirror = tmp_path / "mirror"
    shutil.copytree(repository, mirror)
    assert failback("scrub", "--share", "1").code == 0
    assert failback("scrub", "--listing").code == 0
    hurt(packs(repository)[0])
    done = failback("scrub", "--share", "1")
    assert done.code == 5
    assert "web@1" in done.out
    assert "failback repair" in done.out
    found = failback("scrub", "--share", "1", "--json").result
    assert found["round_complete"]
    [harm] = found["harm"]
    assert (harm["point"], harm["disk"]) == ("web@1", 0)
    assert harm["bytes"] == 20 * CHUNK
    assert harm["ranges"][0] == [0, CHUNK]
    assert failback("scrub", "--listing").code == 0
    assert failback("repair").code == 5
    repaired = failback("repair", "--from", mirror, "--json")
    assert (repaired.code, len(repaired.result["put_back"])) == (0, 1)
    assert failback("scrub", "--deep", "--share", "1").code == 0
    assert failback("verify", "web", "--read").code == 0


def test_a_surviving_disk_repairs_and_the_point_comes_home(
    repository: Path, disk: Path, tmp_path: Path, failback: Run
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    packs(repository)[0].unlink()
    assert failback("scrub", "--listing", "-q").code == 5
    assert failback("import", "web", "--out", tmp_path / "lost").code == 5
    done = failback("repair", "--from-disk", f"web@1:0={disk}", "--json")
    assert (done.code, done.result["from_disks"]) == (0, 20)
    assert failback("scrub", "--listing").code == 0
    assert failback("import", "web", "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "web-disk0.raw").read_bytes() == disk.read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ("scrub", "--share", "0"),
        ("scrub", "--share", "3/2"),
        ("scrub", "--share", "a"),
        ("scrub", "--bytes", "0"),
        ("scrub", "--bytes", "x"),
        ("scrub", "--share", "1/2", "--bytes", "1G"),
        ("scrub", "--listing", "--deep"),
        ("scrub", "--deep", "--without-key"),
        ("repair", "--from-disk", "web"),
        ("repair", "--from-disk", "web:0"),
        ("repair", "--from-disk", "web@1:7=/dev/null"),
        ("copy", "web@1", "--all", "--to", "/nowhere"),
    ],
)
def test_what_cannot_be_asked_is_said(repository: Path, disk: Path, arguments: tuple[str, ...], failback: Run) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    done = failback(*arguments)
    assert done.code == 2
    assert len(done.err.splitlines()) == 2


def test_copies_from_other_repositories_are_refused(
    repository: Path, disk: Path, tmp_path: Path, failback: Run
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    other = tmp_path / "other"
    assert failback("repository", "init", "-r", other).code == 0
    assert failback("repair", "--from", other).code == 5
    mirror = tmp_path / "mirror"
    shutil.copytree(repository, mirror)
    assert failback("copy", "web", "--to", mirror).code == 2


def test_points_are_copied_once_with_all_that_they_say(
    repository: Path, disk: Path, tmp_path: Path, failback: Run, change: object
) -> None:
    assert failback("export", "web", "--disk", disk, "--cpus", "3", "--serial", "S1").code == 0
    change(disk, 4)  # type: ignore[operator]
    assert failback("export", "web", "--disk", disk).code == 0
    other = tmp_path / "other"
    assert failback("repository", "init", "-r", other).code == 0
    done = failback("copy", "web", "--all", "--to", other, "--json")
    assert done.code == 0
    first, second = done.result["copies"]
    assert (first["point"], second["point"]) == ("web@1", "web@2")
    assert not first["digests_equal"]  # they have keys of their own
    assert second["read"] == CHUNK
    again = failback("copy", "web", "--all", "--to", other, "--json").result["copies"]
    assert [c["new"] for c in again] == [False, False]
    assert failback("-r", other, "import", "web", "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "web-disk0.raw").read_bytes() == disk.read_bytes()
    assert "3" in failback("-r", other, "show", "web").out


def test_other_chunks_are_verified_by_reading(repository: Path, disk: Path, tmp_path: Path, failback: Run) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    other = tmp_path / "other"
    assert failback("repository", "init", "-r", other).code == 0
    done = failback("copy", "web", "--to", other, "--chunk-size", "256", "--verify", "--json")
    assert (done.code, done.result["problems"]) == (0, [])
    assert not done.result["copies"][0]["digests_equal"]


def test_a_copy_to_another_key_and_to_none(
    repository: Path, disk: Path, tmp_path: Path, failback: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    other, key = tmp_path / "other", tmp_path / "other-key"
    assert failback("repository", "init", "-r", other, "--key-file", key).code == 0
    assert failback("copy", "web", "--to", other).code == 13
    copied = failback("copy", "web", "--to", other, "--to-key-file", key, "--verify")
    assert copied.code == 0
    assert "it was read again and equals the original" in copied.out
    assert "--verify" not in copied.out
    plain = tmp_path / "plain"
    with monkeypatch.context() as patch:
        patch.delenv("FAILBACK_KEY_FILE")
        assert failback("repository", "init", "-r", plain, "--no-encryption").code == 0
    assert failback("copy", "web", "--to", plain).code == 13
    assert failback("copy", "web", "--to", plain, "--to-unencrypted", "--verify").code == 0


def test_without_a_key_a_scrub_compares_names(
    repository: Path, disk: Path, key: Path, failback: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    monkeypatch.delenv("FAILBACK_KEY_FILE")
    assert failback("scrub", "--share", "1", "--without-key").code == 0
    assert failback("scrub", "--share", "1").code == 13
    hurt(packs(repository)[0])
    assert failback("scrub", "--share", "1", "--without-key").code == 5


def test_salvage_of_a_point_without_pages_is_proved(
    repository: Path, disk: Path, tmp_path: Path, failback: Run
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    shutil.rmtree(repository / "pages")
    (repository / "pages").mkdir()
    out = tmp_path / "salvaged"
    done = failback("salvage", "web@1", "--out", out, "--json")
    assert (done.code, done.result["disks"][0]["proved"]) == (0, True)
    assert (out / "web-1-disk0.raw").read_bytes() == disk.read_bytes()
    assert failback("salvage", "web@1", "--out", out).code == 7


def test_salvage_without_manifests_is_not_proved_and_says_so(
    repository: Path, disk: Path, tmp_path: Path, failback: Run
) -> None:
    assert failback("export", "web", "--disk", disk).code == 0
    for gone in ("pages", "manifests", "sessions"):
        shutil.rmtree(repository / gone)
    out = tmp_path / "salvaged"
    done = failback("salvage", "--out", out)
    assert done.code == 5
    assert "not proved" in done.out
    [raw] = out.glob("*.raw")
    assert raw.read_bytes()[: 39 * CHUNK] == disk.read_bytes()[: 39 * CHUNK]


def test_a_scrub_that_is_killed_goes_on(
    repository: Path, tmp_path: Path, failback: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large"
    large.write_bytes(random.Random(5).randbytes(48 << 20))
    assert failback("export", "web", "--disk", large).code == 0
    monkeypatch.setenv("FAILBACK_DOWNLOAD_LIMIT", "6M")
    monkeypatch.setenv("FAILBACK_PARALLEL", "1")
    notes = tmp_path / "state"
    with subprocess.Popen(command("scrub", "--share", "1"), stdout=subprocess.DEVNULL) as child:
        while not (found := list(notes.rglob("scrub-id.json"))):
            assert child.poll() is None
            os.sched_yield()
        child.send_signal(signal.SIGKILL)
    assert '"objects": 0' not in found[0].read_text()
    monkeypatch.delenv("FAILBACK_DOWNLOAD_LIMIT")
    rest = failback("scrub", "--share", "1", "--json").result
    everything = len(packs(repository)) + len([p for p in (repository / "pages").rglob("*") if p.is_file()])
    assert 0 < rest["objects"] < everything
    assert rest["from"] > "0" * 64
    assert rest["round_complete"]


def test_scrub_repair_and_copy_on_a_real_server(
    minio_endpoint: Server, disk: Path, tmp_path: Path, failback: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.config import load_settings
    from pipeline.store.open import open_store

    monkeypatch.setenv("FAILBACK_REPOSITORY", minio_endpoint.address())
    assert failback("repository", "init").code == 0
    assert failback("export", "web", "--disk", disk).code == 0
    store = open_store(os.environ["FAILBACK_REPOSITORY"], load_settings())
    pack = next(iter(store.list("packs/"))).key
    store.put(pack, bytes(store.get(pack))[:-1] + b"?")
    assert failback("scrub", "--share", "1").code == 5
    assert failback("repair", "--from-disk", f"web:0={disk}").code == 0
    store.delete_many([pack])
    store.close()
    assert failback("scrub", "--listing").code == 0
    other = minio_endpoint.address()
    assert failback("repository", "init", "-r", other).code == 0
    done = failback("copy", "web", "--to", other, "--verify", "--json")
    assert (done.code, done.result["problems"]) == (0, [])
    assert failback("-r", other, "import", "web", "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "web-disk0.raw").read_bytes() == disk.read_bytes()
