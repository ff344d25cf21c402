"""A machine that runs before its disks are here."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from simulators.guests import READY, WRITTEN, boot_sector, make_guest
from transfer.support import noise, poke

from importers.qemu.definition import load
from importers.qemu.process import running
from importers.qemu.served import answers
from importers.qemu.target import QemuImporter
from pipeline.errors import Unsupported
from pipeline.store.directory import DirectoryStore
from pipeline.target import Intent, Place
from qemu.bench import Bench, until


class InstantBench(Bench):
    """Its repository is a directory, which servers can open too."""

    def importer(self) -> QemuImporter:
        importer = super().importer()
        again = (sys.executable, "-m", "pipeline.cli.main", "--repository", str(self.root / "repository"))
        importer._context = replace(importer._context, again=again)
        return importer

    def stage(self, **said: object) -> Place:
        importer, wanted = self.importer(), self.wanted(**said)
        importer.stage(importer.prepare(self.point, wanted, self.marker), self.point, wanted, instant=True)
        return self.place


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InstantBench]:
    monkeypatch.setenv("FAILBACK_STATE_DIR", str(tmp_path / "host"))
    monkeypatch.setenv("FAILBACK_KEY_FILE", str(tmp_path / "bench" / "key"))
    guest = make_guest(tmp_path / "guest.raw", "writes", size=8 << 20)
    poke(guest, 1 << 20, noise(4 << 20, "data"))
    bench = InstantBench(
        tmp_path, guest, store=DirectoryStore(tmp_path / "repository", create=True), disks={0: {"bus": "sata"}}
    )
    yield bench
    bench.importer().remove(bench.marker)
    assert servers(bench) == []


def servers(bench: Bench) -> list[int]:
    found = []
    for where in bench.out.glob("*/served/disk*"):
        with running(where, "serve") as process:
            found += [process.number] if process else []
    return found


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_it_boots_from_the_repository_and_moves_to_its_own_disks_at_the_next_start(bench: InstantBench) -> None:
    assert bench.findings() == []
    build = bench.boot(bench.build())
    importer = bench.importer()
    until(importer, build, lambda now: READY in now.console)
    assert len(servers(bench)) == 1
    eventually(lambda: bench.place.stage is not None and bench.place.stage.complete)
    importer.stop(build, seconds=0)
    bench.boot(build)
    assert servers(bench) == []
    machine = load(bench.folder)
    assert machine is not None
    assert machine.disks[0].node.format == "qcow2"
    until(importer, build, lambda now: READY in now.console)
    importer.stop(build, seconds=0)
    assert bench.place.stage is not None
    assert importer.check(bench.place.stage) == "", "the stage holds what the guest wrote"
    importer.finish(bench.place, build, keep=True)
    [disk] = bench.out.glob("*/stage/disk0.raw")
    assert disk.read_bytes()[WRITTEN:][:512] == boot_sector("writes")


def test_a_server_that_is_killed_is_started_again_by_the_same_command(bench: InstantBench) -> None:
    build = bench.boot(bench.build())
    importer = bench.importer()
    until(importer, build, lambda now: READY in now.console)
    [first] = servers(bench)
    os.kill(first, signal.SIGKILL)
    [where] = bench.out.glob("*/served/disk0")
    eventually(lambda: not answers(where))
    bench.boot(build)
    [second] = servers(bench)
    assert second != first
    assert answers(where)
    seen = importer.observe(build)
    assert (seen.power, seen.reason) == ("on", "")
    importer.stop(build, seconds=0)
    importer.finish(bench.place, build, keep=True)
    assert servers(bench) == []
    [disk] = bench.out.glob("*/stage/disk0.raw")
    assert disk.read_bytes()[WRITTEN:][:512] == boot_sector("writes")
    assert bench.place.state == "kept"


def test_a_filled_disk_that_somebody_wrote_to_is_served_until_it_is_mended(bench: InstantBench) -> None:
    build = bench.boot(bench.build())
    importer = bench.importer()
    until(importer, build, lambda now: READY in now.console)
    eventually(lambda: bench.place.stage is not None and bench.place.stage.complete)
    importer.stop(build, seconds=0)
    [disk] = bench.out.glob("*/stage/disk0.raw")
    poke(disk, 0, b"by hand")  # where the guest boots from
    for _ in range(2):
        bench.boot(build)
        until(importer, build, lambda now: READY in now.console)
        eventually(lambda: bool((stage := bench.place.stage) and stage.complete and not importer.check(stage)))
        importer.stop(build, seconds=0)
    assert servers(bench) == []
    assert disk.read_bytes() == (bench.root / "guest.raw").read_bytes()


def test_dropped_it_leaves_disks_that_a_plain_import_completes(bench: InstantBench) -> None:
    build = bench.boot(bench.build())
    importer = bench.importer()
    until(importer, build, lambda now: READY in now.console)
    importer.stop(build, seconds=0)
    importer.finish(bench.place, build, keep=False)
    assert servers(bench) == []
    stage = importer.stage(bench.place, bench.point, bench.wanted())
    assert stage.complete
    [disk] = bench.out.glob("*/stage/disk0.raw")
    assert disk.read_bytes() == (bench.root / "guest.raw").read_bytes()


def test_asked_twice_it_is_served_once(bench: InstantBench) -> None:
    assert bench.stage().stage is not None
    before = servers(bench)
    assert len(before) == 1
    bench.stage()
    assert servers(bench) in (before, []), "none: it was filled meanwhile"


def test_a_caller_that_cannot_be_called_again_is_told_before(tmp_path: Path) -> None:
    plain = Bench.of_sector(tmp_path, "idles")
    importer = plain.importer()
    findings = importer.preflight(plain.point, plain.wanted(), Intent("production", boots=True, instant=True))
    assert "instant" in {finding.subject for finding in findings if finding.severity == "error"}
    place = importer.prepare(plain.point, plain.wanted(), plain.marker)
    with pytest.raises(Unsupported):
        importer.stage(place, plain.point, plain.wanted(), instant=True)
