"""Options of an export: changed blocks, hardware, disks that are in use or cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nbd.tools import needs_qemu, qemu_nbd, run

from cli.conftest import CHUNK, Run
from pipeline.cli.per_disk import per_disk
from pipeline.described import memory_bytes, parse_nic
from pipeline.errors import Unreadable, UsageError
from pipeline.exporters.raw import RawExporter
from pipeline.writers.open import open_writer


@pytest.fixture
def changes(tmp_path: Path) -> Callable[..., Path]:
    """A change list of whole chunks."""

    def write(*positions: int, since: Any = None) -> Path:
        document: dict[str, Any] = {"extents": [[p * CHUNK, CHUNK] for p in positions]}
        if since is not None:
            document["since"] = since
        path = tmp_path / "changes.json"
        path.write_text(json.dumps(document))
        return path

    return write


def export(failback: Run, disk: Path, *more: object) -> dict[str, Any]:
    done = failback("export", "web", "--disk", disk, "--json", *more)
    assert done.code == 0, done.err
    return done.result["disks"][0]  # type: ignore[no-any-return]


def test_a_change_list_is_all_that_is_read(
    repository: Path, disk: Path, change: Any, changes: Any, failback: Run
) -> None:
    export(failback, disk)
    change(disk, 4)
    assert export(failback, disk, "--changes", changes(4, since=1))["read"] == CHUNK
    change(disk, 6)
    assert export(failback, disk, "--changes", changes(6), "--changes-since", "latest")["mode"] == "changed blocks"
    assert failback("verify", "web", "--disk", disk).code == 0


def test_a_change_list_of_an_older_point_is_not_trusted(
    repository: Path, disk: Path, change: Any, changes: Any, failback: Run
) -> None:
    export(failback, disk)
    change(disk, 4)
    export(failback, disk)
    change(disk, 6)
    done = export(failback, disk, "--changes", changes(8, since=1))
    assert done["mode"] == "incremental"
    assert "every block is compared" in done["reason"]
    assert failback("verify", "web", "--disk", disk).code == 0


def test_a_change_list_without_a_beginning_is_refused(
    repository: Path, disk: Path, changes: Any, failback: Run
) -> None:
    export(failback, disk)
    done = failback("export", "web", "--disk", disk, "--changes", changes(1))
    assert done.code == 2
    assert "--changes-since" in done.err


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "{}",
        '{"since": 0, "extents": []}',
        '{"since": true, "extents": []}',
        '{"since": 1, "extents": [[0]]}',
        '{"since": 1, "extents": [[-1, 5]]}',
        '{"since": 1, "extents": [[0, 1.5]]}',
        '{"since": 1, "extents": [[0, 1099511627776]]}',
    ],
)
def test_a_wrong_change_list_is_refused(repository: Path, disk: Path, tmp_path: Path, text: str, failback: Run) -> None:
    export(failback, disk)
    path = tmp_path / "wrong.json"
    path.write_text(text)
    done = failback("export", "web", "--disk", disk, "--changes", path)
    assert done.code == 2
    assert "wrong.json" in done.err


def test_a_change_list_that_contradicts_itself_is_refused(
    repository: Path, disk: Path, changes: Any, failback: Run
) -> None:
    export(failback, disk)
    export(failback, disk)
    assert failback("export", "web", "--disk", disk, "--changes", changes(since=1), "--changes-since", 2).code == 2
    assert failback("export", "web", "--disk", disk, "--changes-since", 2).code == 2


def test_flags_win_over_the_file_and_the_file_over_the_last_point(
    repository: Path, disk: Path, tmp_path: Path, failback: Run
) -> None:
    export(failback, disk, "--cpus", 8, "--memory", "8G", "--firmware", "uefi", "--secure-boot")
    file = tmp_path / "machine.yaml"
    file.write_text("memory: 4G\nnics:\n- {mac: 'AA-BB-CC-DD-EE-FF', network: lan}\ndisks:\n- {bus: nvme, serial: X}\n")
    export(failback, disk, "--hardware", file, "--memory", "2G")
    shown = failback("show", "web", "--json").result
    machine = shown["machine"]
    assert (machine["cpus"], machine["memory_bytes"], machine["firmware"]) == (8, 2 << 30, "uefi")
    assert machine["secure_boot"] is True
    assert machine["nics"][0]["mac"] == "aa:bb:cc:dd:ee:ff"
    assert (shown["disks"][0]["bus"], shown["disks"][0]["serial"]) == ("nvme", "X")
    export(failback, disk, "--no-secure-boot")
    shown = failback("show", "web", "--json").result
    assert shown["machine"]["secure_boot"] is False
    assert shown["disks"][0]["bus"] == "nvme"


def test_this_host_is_read(repository: Path, disk: Path, failback: Run) -> None:
    export(failback, disk, "--this-host", "--cpus", 3)
    machine = failback("show", "web", "--json").result["machine"]
    assert machine["name"] == "web"
    assert machine["cpus"] == 3
    assert machine["memory_bytes"] > 1 << 20
    assert machine["raw"]["kernel"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--cpus", "0"),
        ("--firmware", "coreboot"),
        ("--memory", "lots"),
        ("--nic", "mac=zz"),
        ("--nic", "speed=10"),
        ("--boot-disk", "1"),
        ("--bus", "3=scsi"),
        ("--consistency", "torn"),
        ("--hardware", "/does/not/exist.yaml"),
        ("--chunk-size", "63"),
        ("--base", "web@x"),
    ],
)
def test_impossible_options_are_refused(repository: Path, disk: Path, flags: tuple[str, str], failback: Run) -> None:
    done = failback("export", "web", "--disk", disk, *flags)
    assert done.code == 2
    assert failback("list", "--json").result["machines"] == []


def test_a_typing_error_in_the_hardware_file_is_told(
    repository: Path, disk: Path, tmp_path: Path, failback: Run
) -> None:
    file = tmp_path / "machine.yaml"
    file.write_text("cpu: 4\n")
    done = failback("export", "web", "--disk", disk, "--hardware", file)
    assert done.code == 2
    assert "cpu" in done.err
    assert "cpus" in done.err


def test_one_disk_is_not_exported_twice(repository: Path, disk: Path, failback: Run) -> None:
    assert failback("export", "web", "--disk", disk, "--disk", disk).code == 2


def test_the_boot_disk_is_the_first_unless_said(repository: Path, disk: Path, tmp_path: Path, failback: Run) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(b"x" * 5000)
    for flags, boot in (((), [True, False]), (("--boot-disk", 1), [False, True]), ((), [False, True])):
        assert failback("export", "web", "--disk", disk, "--disk", other, *flags).code == 0
        shown = failback("show", "web", "--json").result
        assert [d["boot"] for d in shown["disks"]] == boot


def test_a_disk_that_is_in_use_is_torn(
    repository: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, failback: Run
) -> None:
    monkeypatch.setattr("pipeline.exporters.raw.file_user", lambda _fd: "somebody writes to it")
    refused = failback("export", "web", "--disk", disk)
    assert refused.code == 6
    assert "--allow-live" in refused.err
    done = failback("export", "web", "--disk", disk, "--allow-live", "--consistency", "application")
    assert done.code == 0
    assert "torn" in done.err
    assert failback("show", "web", "--json").result["consistency"] == "torn"


def test_unreadable_ranges_are_told_with_code_10(
    repository: Path, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failback: Run
) -> None:
    bad = (4 * CHUNK + 512, 512)
    read = RawExporter.read_into

    def read_into(self: RawExporter, offset: int, buffer: memoryview) -> None:
        if offset < sum(bad) and offset + len(buffer) > bad[0]:
            raise Unreadable(f"{self.name}: I/O error", offset=bad[0], length=bad[1])
        read(self, offset, buffer)

    monkeypatch.setattr(RawExporter, "read_into", read_into)
    assert failback("export", "web", "--disk", disk).code == 6
    done = failback("export", "web", "--disk", disk, "--keep-going")
    assert done.code == 10
    assert f"512 bytes at {bad[0]}" in done.err
    assert failback("show", "web", "--json").result["disks"][0]["unreadable"] == [list(bad)]
    back = failback("import", "web", "--out", tmp_path / "out")
    assert "could not be read" in back.err


def test_values_per_disk() -> None:
    assert per_disk(["a"], 3, "--bus", one_for_all=True) == ["a", "a", "a"]
    assert per_disk(["a"], 3, "--serial", one_for_all=False) == ["a", None, None]
    assert per_disk(["a", "2=b"], 3, "--bus", one_for_all=True) == ["a", None, "b"]
    for wrong in (["a", "0=b"], ["a", "b", "c", "d"], ["7=x"]):
        with pytest.raises(UsageError):
            per_disk(wrong, 3, "--bus", one_for_all=True)


def test_amounts_of_memory() -> None:
    assert memory_bytes("512") == memory_bytes("512M") == memory_bytes("512 MiB") == 512 << 20
    assert memory_bytes("1.5g") == 3 << 29


def test_network_adapters() -> None:
    found = parse_nic("mac=aa:bb:cc:dd:ee:ff,network=lan,address=10.0.0.5/24,address=fd00::5/64")
    assert found["addresses"] == ["10.0.0.5/24", "fd00::5/64"]


def test_a_disk_that_is_not_named_any_more_is_refused_unless_it_is_lost(
    repository: Path, disk: Path, tmp_path: Path, failback: Run
) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(b"x" * 5000)
    assert failback("export", "web", "--disk", disk, "--disk", other).code == 0
    for more in ((), ("--dry-run",), ("--full",), ("--final",)):
        refused = failback("export", "web", "--disk", disk, *more)
        assert refused.code == 2
        assert f"1: {other}" in refused.err
        assert "--fewer-disks" in refused.err
    assert [point["sequence"] for point in failback("list", "web", "--json").result["points"]] == [1]
    assert failback("export", "web", "--disk", disk, "--fewer-disks").code == 0
    assert failback("export", "web", "--disk", disk).code == 0, "the newest point is what counts"


@pytest.mark.parametrize(
    ("flags", "warned"),
    [
        ((), False),
        (("--cpus", 2), True),
        (("--nic", "network=lan"), False),
        (("--nic", "network=lan", "--cpus", 2), False),
    ],
)
def test_hardware_without_an_adapter_is_warned_of(
    repository: Path, disk: Path, flags: tuple[object, ...], warned: bool, failback: Run
) -> None:
    done = failback("export", "web", "--disk", disk, *flags)
    assert done.code == 0
    assert ("no network adapter is recorded" in done.err) is warned
    assert "adapter" not in failback("export", "web", "--disk", disk).err


@needs_qemu
def test_why_a_bitmap_is_not_used_is_said(repository: Path, tmp_path: Path, failback: Run) -> None:
    image = tmp_path / "disk.qcow2"

    run("qemu-img", "create", "-f", "qcow2", image, "1M")
    export(failback, image)
    for name in ("failback-late", "nightly"):
        run("qemu-img", "bitmap", "--add", image, name)
    done = export(failback, image)
    assert done["mode"] == "incremental"
    assert "bitmap failback-late is not used, it was not there and empty at point 1" in done["reason"]
    assert "bitmap nightly is not used, its name does not begin with failback" in done["reason"]
    done = export(failback, image)
    assert done["mode"] == "changed blocks"
    assert "not used" not in done["reason"]
    assert "bitmap" not in export(failback, image, "--no-change-maps")["reason"]


@needs_qemu
def test_a_bitmap_that_a_dead_writer_left_is_said_to_be_of_no_use(
    repository: Path, tmp_path: Path, failback: Run
) -> None:
    image = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-f", "qcow2", image, "1M")
    run("qemu-img", "bitmap", "--add", image, "failback-1")
    export(failback, image)
    with qemu_nbd(tmp_path, "--format=qcow2", image) as server:
        writer = open_writer(server.uri, size=1 << 20)
        writer.write(0, [b"x" * 512])
        writer.flush()
        server.kill()  # a bitmap in use is written back at the end, which does not come
        writer.close()
    done = export(failback, image)
    assert done["mode"] == "incremental"
    assert "bitmap failback-1 is not used, it was not stored completely" in done["reason"]
    assert done["chunks_new"] == 1


def test_the_forecast_has_units_that_suit(repository: Path, disk: Path, failback: Run) -> None:
    assert "reads 1.25 MiB, 0.0 s at 100 MB/s" in export(failback, disk)["reason"]


@needs_qemu
def test_a_bitmap_that_was_disabled_hides_no_writes(repository: Path, tmp_path: Path, failback: Run) -> None:
    image = tmp_path / "disk.qcow2"
    run("qemu-img", "create", "-f", "qcow2", image, "1M")
    run("qemu-img", "bitmap", "--add", image, "failback-1")
    export(failback, image)
    run("qemu-img", "bitmap", "--disable", image, "failback-1")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 512", image)
    done = export(failback, image)
    assert done["chunks_new"] == 1
    assert "bitmap failback-1 is not used, it is disabled" in done["reason"]
    # Nor does one begin where it is disabled: it may be enabled after the next write.
    run("qemu-img", "bitmap", "--add", "--disable", image, "failback-2")
    export(failback, image)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 8 0 512", image)
    run("qemu-img", "bitmap", "--enable", image, "failback-2")
    assert export(failback, image)["chunks_new"] == 1
