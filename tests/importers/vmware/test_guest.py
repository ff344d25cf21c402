"""From a repository to a machine that boots: a small Linux, imported to the stand-in, which runs it in QEMU."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from simulators.vsphere_server import VSphere, run_vsphere

# The builder is not installed: it is found from the top of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
# The harness of the contract suite beside us.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract.vmware import VmwareHarness

from manifests.machine import Machine, Nic
from pipeline.boot.cache import default_folder
from pipeline.target import Build, Importer, Observation
from scripts.guest import build_guest

pytestmark = pytest.mark.slow

_CACHE = default_folder()
"""Looked up before tests isolate themselves."""
READY = "failback-guest ready"
SECONDS = 240


class GuestHarness(VmwareHarness):
    """The machine is a guest that boots, on PVSCSI, with its console on the serial port."""

    def mapping(self) -> dict[str, object]:
        said = super().mapping()
        said["disks"] = {number: {"bus": "pvscsi"} for number in range(2)}
        return said

    def _export(self) -> None:
        guest = build_guest(
            self.root / "guest", firmware="bios", disks=("system", "data"), cache=_CACHE, size=256 << 20
        )
        hardware = Machine(name="vm", cpus=2, memory_bytes=512 << 20, nics=(Nic(network="lan"),))
        for sequence in (1, 2):
            self.bench.export(*guest.disks, machine="vm", hardware=hardware)
            self.sources[sequence] = [disk.read_bytes() for disk in guest.disks]
            with guest.disks[1].open("r+b") as disk:
                disk.seek(-4096, 2)
                disk.write(b"a later point".ljust(4096, b"\0"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[VSphere]:
    with run_vsphere(tmp_path / "vsphere", qemu=True) as running:
        yield running
        assert running.report()["problems"] == []


def until_ready(importer: Importer, build: Build) -> Observation:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        seen = importer.observe(build)
        if READY in seen.console:
            return seen
        time.sleep(0.5)
    raise AssertionError(f"the guest did not come up; its console:\n{importer.observe(build).console[-2000:]}")


def test_a_guest_is_rehearsed_pictured_thrown_away_and_a_later_point_comes_home(
    tmp_path: Path, server: VSphere
) -> None:
    harness = GuestHarness(tmp_path, server)
    with harness.open() as importer:
        place = harness.staged(importer)
        assert place.stage is not None
        build = importer.build(place, place.stage, harness.wanted().rehearsal(), "rehearsal")
        build = importer.boot(build, build.networks)
        seen = until_ready(importer, build)
        assert seen.power == "on"
        picture = importer.picture(build)
        assert picture is not None
        with Image.open(io.BytesIO(picture)) as image:
            assert len(image.convert("L").getcolors(1 << 20) or ()) > 1, "the screen is empty"
        assert importer.stop(build, seconds=0).power == "off"
        stage = importer.finish(harness.found(importer), build, keep=False)
        assert importer.check(stage) == ""
        assert harness.equals(stage, 1), "what the rehearsal wrote is gone"
        later = importer.stage(harness.found(importer), harness.point(2), harness.wanted(2))
        assert harness.equals(later, 2)
        home = importer.build(harness.found(importer), later, harness.wanted(2), "production")
        assert importer.boot(home, home.networks).booted
        importer.remove(harness.marker)
    assert harness.things() == []
