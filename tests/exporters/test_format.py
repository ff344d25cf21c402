"""The format comes from the name or the user; content that contradicts is an error, never a decision."""

from __future__ import annotations

from pathlib import Path

import pytest
from nbd.tools import needs_qemu, run

from pipeline.errors import UsageError
from pipeline.exporters.image import ImageExporter
from pipeline.exporters.open import open_exporter
from pipeline.exporters.raw import RawExporter

HEADERS = {
    "qcow2": b"QFI\xfb\0\0\0\3",
    "vmdk": b"KDMV\1\0\0\0",
    "vhdx": b"vhdxfile",
    "vpc": b"conectix",
    "vdi": bytes(64) + b"\x7f\x10\xda\xbe",
}


@pytest.mark.parametrize("name", ["disk", "disk.img", "disk.raw", "disk.bin", "disk.dd"])
@pytest.mark.parametrize("header", HEADERS)
def test_a_guest_that_writes_an_image_header_into_its_raw_disk_gains_nothing(
    tmp_path: Path, name: str, header: str
) -> None:
    path = tmp_path / name
    path.write_bytes(HEADERS[header].ljust(4096, b"\0"))
    with pytest.raises(UsageError, match=f"{header} image by its content") as caught:
        open_exporter(str(path))
    assert "--format raw" in caught.value.remedy
    assert f"--format {header}" in caught.value.remedy
    exporter = open_exporter(str(path), image_format="raw")
    assert isinstance(exporter, RawExporter)
    assert exporter.size == 4096


def test_the_footer_of_a_fixed_vhd_counts_as_well(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4096) + b"conectix".ljust(512, b"\0"))
    with pytest.raises(UsageError, match="vpc"):
        open_exporter(str(path))


@pytest.mark.parametrize("name", ["disk.qcow2", "disk.vmdk", "disk.vhd", "disk.vhdx", "disk.vdi", "disk.QCOW2"])
def test_a_raw_disk_with_the_name_of_an_image_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(bytes(8192))
    with pytest.raises(UsageError, match="--format raw"):
        open_exporter(str(path))
    open_exporter(str(path), image_format="raw").close()


def test_the_flat_part_of_a_vmdk_points_to_its_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "vm-flat.vmdk"
    path.write_bytes(bytes(8192))
    with pytest.raises(UsageError, match=r"small \.vmdk beside it"):
        open_exporter(str(path))


def test_an_asked_format_that_the_content_is_not_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(8192))
    with pytest.raises(UsageError, match="is no qcow2 image"):
        open_exporter(str(path), image_format="qcow2")


def test_an_unknown_format_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(8192))
    with pytest.raises(UsageError, match="qcow2"):
        open_exporter(str(path), image_format="floppy")


@needs_qemu
def test_an_image_with_another_name_is_opened_when_the_user_says_so(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    run("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    exporter = open_exporter(str(path), image_format="qcow2")
    assert isinstance(exporter, ImageExporter)
    assert exporter.size == 1024 * 1024
    exporter.close()
