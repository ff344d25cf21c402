"""Disk files of somebody else become a machine's, and are let go again."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import pytest
from simulators.guests import READY, boot_sector, make_guest
from transfer.support import noise, poke

from pipeline.errors import TargetBusy, TargetError, Unsupported
from qemu.bench import Bench, until


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    guest = make_guest(tmp_path / "guest.raw", "idles")
    poke(guest, 512 << 10, noise(200 << 10, "data"))
    return Bench(tmp_path, guest)


def test_a_surviving_disk_is_hashed_and_only_what_differs_is_written(bench: Bench, tmp_path: Path) -> None:
    survivor = tmp_path / "survivor.raw"
    survivor.write_bytes((tmp_path / "guest.raw").read_bytes())
    poke(survivor, 0, b"damaged")
    importer = bench.importer()
    assert importer.adopt(str(survivor), bench.marker).adopted
    [disk] = importer.stage(bench.place, bench.point, bench.wanted()).disks
    assert (disk.mode, disk.target) == ("hashed", str(survivor))
    assert disk.counters.read < 100 << 10, "what it had was fetched"
    assert survivor.read_bytes() == (tmp_path / "guest.raw").read_bytes()
    try:
        build = bench.boot(bench.build())
        until(importer, build, lambda now: READY in now.console)
    finally:
        importer.remove(bench.marker)
    assert survivor.read_bytes()[:512] == boot_sector("idles")


def test_a_qcow2_disk_is_taken_over_as_such(bench: Bench, tmp_path: Path) -> None:
    survivor = tmp_path / "survivor.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", survivor, "1M"], check=True)
    importer = bench.importer()
    importer.adopt(str(survivor), bench.marker)
    try:
        build = bench.boot(bench.build())
        until(importer, build, lambda now: READY in now.console)
        importer.stop(build, seconds=0)
        assert importer.check(bench.place.stage) == ""  # type: ignore[arg-type]
    finally:
        importer.remove(bench.marker)
    assert survivor.exists()


def test_what_cannot_be_taken_over_is_refused_and_left_as_it_is(bench: Bench, tmp_path: Path) -> None:
    importer = bench.importer()
    raw = make_guest(tmp_path / "base.raw", "idles")
    for name, options in (("a.qcow2", ["-b", str(raw), "-F", "raw"]), ("b.raw", [])):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, tmp_path / name, "1M"], check=True)
        with pytest.raises(Unsupported):
            importer.adopt(str(tmp_path / name), bench.marker)
    for name in ("/dev/null", str(tmp_path), str(tmp_path / "nothing")):
        with pytest.raises(Unsupported, match="is no file"):
            importer.adopt(name, bench.marker)
    assert importer.find(bench.marker) is None


def test_a_disk_has_one_place_and_a_place_its_own_disks(bench: Bench, tmp_path: Path) -> None:
    importer = bench.importer()
    one, other = (make_guest(tmp_path / name, "idles") for name in ("one.raw", "other.raw"))
    importer.adopt(str(one), bench.marker)
    with pytest.raises(TargetBusy):
        importer.adopt(str(one), uuid.uuid4())
    with pytest.raises(TargetBusy):
        importer.adopt(str(other), bench.marker)
    importer.remove(bench.marker)
    importer.adopt(str(one), uuid.uuid4())


def test_a_disk_that_is_too_large_is_not_cut(bench: Bench, tmp_path: Path) -> None:
    survivor = make_guest(tmp_path / "survivor.raw", "idles", size=2 << 20)
    importer = bench.importer()
    importer.adopt(str(survivor), bench.marker)
    with pytest.raises(TargetError, match="has 2097152 bytes"):
        importer.stage(bench.place, bench.point, bench.wanted())
    assert survivor.stat().st_size == 2 << 20
