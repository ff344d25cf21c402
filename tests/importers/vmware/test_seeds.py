"""Surviving disks as seeds: what they still have is read and not fetched; they are never written, their machine is
never touched, and no worker keeps them, whoever dies."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim
from simulators.vsphere_client import Client, disks_of, machine_spec
from simulators.vsphere_server import VSphere
from simulators.vsphere_worker import PlayedWorker
from transfer.killing import in_child
from transfer.support import CHUNK, MIB, noise, poke

# The harness of the contract suite beside us.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract.vmware import VmwareHarness, VmwareOwnWorkerHarness

from importers.vmware import worker
from importers.vmware.connection import Connection
from importers.vmware.find import SEEDS
from importers.vmware.inventory import find_site
from importers.vmware.options import parse_options
from importers.vmware.seeds import find_seeds, lent_by
from importers.vmware.target import VmwareImporter
from importers.vmware.vm import Vm
from pipeline.errors import FailbackError, TargetBusy, TargetMismatch, Unsupported, UsageError
from pipeline.finding import Finding
from pipeline.home.clean import clean
from pipeline.home.control import Controller
from pipeline.home.folder import Record
from pipeline.home.site import Ground
from pipeline.mapping import parse_mapping
from pipeline.place import Stage
from pipeline.target import Context, Importer, Intent
from vmware.test_worker_faults import LargeHarness, written
from vmware.test_worker_shared import Aside, Heard, eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")
SURVIVOR = "old-web"
READ_ONLY = "independent_nonpersistent"


class Seeded(VmwareOwnWorkerHarness):
    """Every command is given `seeds`."""

    seeds: tuple[str, ...] = ()

    def make(self, context: Context) -> Importer:
        return super().make(replace(context, seeds=self.seeds))


class LargeSeeded(Seeded, LargeHarness):
    pass


class Survivor:
    """A machine of the site, off, whose disks have most of what a point has; and how it was at the beginning."""

    def __init__(self, server: VSphere, client: Client, contents: list[bytes]) -> None:
        self._server, self._client = server, client
        size = -(-max(map(len, contents)) // MIB) * MIB
        self.machine = client.create(machine_spec(SURVIVOR, datastore="LocalDS_1", disks=len(contents), size=size))
        self.disks: list[dict[str, Any]] = server.machine(SURVIVOR)["disks"]
        self.paths = [disk["path"] for disk in self.disks]
        for disk, content in zip(self.disks, contents, strict=True):
            poke(Path(disk["file"]), 0, content)
        self._was = self._now()
        server.forget()

    def _now(self) -> tuple[list[bytes], str, str]:
        machine = self._server.machine(SURVIVOR)
        return [Path(d["file"]).read_bytes() for d in self.disks], machine["change_version"], machine["power"]

    def is_untouched(self) -> bool:
        """No byte, no change of its configuration, no call to it at all but looks."""
        log = self._server.report()["log"]
        called = [call for call in log if call["object"] == self.machine._moId and call["method"] != "Fetch"]
        assert called == []
        return self._now() == self._was


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "WATCH_SECONDS", 0.5)


@pytest.fixture
def harness(tmp_path: Path, server: VSphere) -> Seeded:
    return Seeded(tmp_path, server)


@pytest.fixture
def survivor(server: VSphere, client: Client, harness: Seeded) -> Survivor:
    """Its first disk has another first chunk than the point, its second has all."""
    first, second = harness.sources[1]
    harness.seeds = (SURVIVOR,)
    return Survivor(server, client, [noise(CHUNK, "other") + first[CHUNK:], second])


def stage(harness: Seeded, sequence: int = 1, *, seeds: tuple[str, ...] | None = None, heard: Any = None) -> Stage:
    """A command of its own."""
    point, wanted = harness.point(sequence), harness.wanted(sequence)
    before, harness.seeds = harness.seeds, harness.seeds if seeds is None else seeds
    try:
        with harness.open(heard) as importer:
            return importer.stage(importer.prepare(point, wanted, harness.marker), point, wanted)
    finally:
        harness.seeds = before


def lent(harness: Seeded) -> list[str]:
    """Paths of what the worker has plugged in to be read."""
    machines = harness.workers().values()
    return [disk["path"] for machine in machines for disk in machine["disks"] if disk["mode"] == READ_ONLY]


def is_whole(harness: Seeded, survivor: Survivor, sequence: int = 1) -> None:
    """Staging again moves nothing; the worker has given everything back."""
    again = stage(harness, sequence)
    assert {disk.mode for disk in again.disks} == {"unchanged"}
    assert harness.equals(again, sequence)
    assert len(harness.worker()["disks"]) == 1
    assert survivor.is_untouched()
    assert harness.server.report()["orphans"] == []


# -- what they save ----------------------------------------------------------------------------------------------------


def test_what_a_seed_still_has_is_read_and_only_the_rest_is_fetched(
    harness: Seeded, survivor: Survivor, played: PlayedWorker
) -> None:
    heard = Heard()
    played.blind = True
    command: list[Stage] = []
    aside = Aside(lambda: command.append(stage(harness, heard=heard)))
    eventually(lambda: len(lent(harness)) == 2)
    modes = {disk["path"]: disk["mode"] for disk in harness.worker()["disks"]}
    assert {modes[path] for path in survivor.paths} == {READ_ONLY}
    assert sorted(modes.values()).count("independent_persistent") == 2, "the disks that are written"
    played.blind = False
    aside.end()
    [done] = command
    chunks = [len({*range(-(-len(s) // CHUNK))} - _zeros(s)) for s in harness.sources[1]]
    assert [disk.counters.deduplicated for disk in done.disks] == [(chunks[0] - 1) * CHUNK, chunks[1] * CHUNK]
    assert done.disks[0].counters.read > 0, "the one chunk that it had not"
    assert done.disks[1].counters.read == 0
    heard.told("disk 0: the seeds had")
    is_whole(harness, survivor)

    fetched = sum(disk.counters.read for disk in done.disks)
    with harness.open() as importer:
        importer.remove(harness.marker)
    plain = stage(harness, seeds=())
    assert sum(disk.counters.read for disk in plain.disks) > 5 * fetched, "without seeds"


def _zeros(content: bytes) -> set[int]:
    return {i for i in range(-(-len(content) // CHUNK)) if not content[i * CHUNK : (i + 1) * CHUNK].strip(b"\0")}


def test_a_disk_is_named_by_its_path_whoever_it_belongs_to_and_may_lie_on_a_snapshot(
    harness: Seeded, survivor: Survivor, played: PlayedWorker, client: Client
) -> None:
    client.wait(survivor.machine.CreateSnapshot_Task("before the fire", "", False, False))
    [upper, other] = [disk.backing.fileName for disk in disks_of(client, survivor.machine)]
    assert [upper, other] != survivor.paths
    survivor.machine.UnregisterVM()
    done = stage(harness, seeds=(upper.replace("] ", "]"), other))
    assert done.disks[1].counters.read == 0
    assert done.disks[0].counters.deduplicated > 0
    assert harness.equals(done, 1)
    assert len(harness.worker()["disks"]) == 1


def test_a_refresh_takes_what_changed_from_a_seed_which_is_none_of_the_disks_that_are_written(
    harness: Seeded, survivor: Survivor, played: PlayedWorker, server: VSphere
) -> None:
    stage(harness, seeds=())
    with pytest.raises(UsageError, match="which is the machine that is written"):
        stage(harness, 2, seeds=(server.machine("vm")["disks"][0]["path"],))
    with pytest.raises(TargetMismatch, match="no machine in the datacenter DC0 is called vm"):
        stage(harness, 2, seeds=("vm",))
    for disk, content in zip(survivor.disks, harness.sources[2], strict=True):
        poke(Path(disk["file"]), 0, content)
    done = stage(harness, 2, seeds=tuple(survivor.paths))
    assert [disk.mode for disk in done.disks] == ["refresh", "refresh"]
    assert sum(disk.counters.read for disk in done.disks) == 0
    assert sum(disk.counters.deduplicated for disk in done.disks) > 0
    assert harness.equals(done, 2)
    assert lent(harness) == []


# -- what is none ------------------------------------------------------------------------------------------------------


def findings(harness: VmwareHarness, importer: Importer) -> list[Finding]:
    wanted = harness.wanted(name="another")
    found = importer.preflight(harness.point(), wanted, Intent("production", boots=False))
    return [finding for finding in found if finding.subject.startswith("seed")]


@pytest.mark.parametrize(
    ("name", "kind", "says", "helps"),
    [
        ("nobody", TargetMismatch, "no machine in the datacenter DC0 is called nobody", "folder/disk.vmdk"),
        ("[LocalDS_1] old-web/nothing.vmdk", TargetMismatch, "there is no disk", "leave it out"),
        ("[LocalDS_1] nowhere/nothing.vmdk", TargetMismatch, "there is no disk", "leave it out"),
        ("[other] old-web/disk1.vmdk", TargetMismatch, "reaches a datastore called other", "LocalDS_0, LocalDS_1"),
        ("[LocalDS_1] old-web/disk1-flat.vmdk", UsageError, "is no disk", "folder/disk.vmdk"),
        ("[LocalDS_1] old-web/old-web.vmx", UsageError, "is no disk", "folder/disk.vmdk"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_made(
    harness: Seeded, survivor: Survivor, name: str, kind: type[FailbackError], says: str, helps: str
) -> None:
    refused(harness, name, kind, says, helps)
    assert survivor.is_untouched()


def refused(harness: Seeded, name: str, kind: type[FailbackError], says: str, helps: str) -> None:
    """By the preflight, and by staging, which makes no worker for it."""
    harness.seeds = (name,)
    with harness.open() as importer:
        [finding] = findings(harness, importer)
    assert (finding.severity, finding.subject) == ("error", f"seed {name}")
    assert says in finding.message, finding
    assert helps in finding.remedy, finding
    with pytest.raises(kind) as caught:
        stage(harness)
    assert (caught.value.message, caught.value.remedy) == (finding.message, finding.remedy)
    assert harness.workers() == {}


def test_a_disk_of_a_machine_that_is_on_is_refused_and_so_is_one_below_its_snapshot(
    harness: Seeded, survivor: Survivor, client: Client
) -> None:
    base = survivor.paths[0]
    client.wait(survivor.machine.PowerOnVM_Task(None))
    for name in (SURVIVOR, base):
        refused(harness, name, TargetBusy, f"{SURVIVOR} is switched on and uses it", "must be off")
    client.wait(survivor.machine.CreateSnapshot_Task("backup", "", False, False))
    refused(harness, base, TargetBusy, f"{SURVIVOR} is switched on and runs on a snapshot of it", "must be off")


def test_a_raw_device_is_no_seed(harness: Seeded, client: Client, server: VSphere) -> None:
    """The stand-in makes none: what vSphere would show of one is put in its place."""
    client.create(machine_spec(SURVIVOR))
    options = parse_options(harness.mapping()["options"]["vmware"])  # type: ignore[index]
    connection = Connection(options)
    real = connection.collector
    raw = vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo

    class Collector:
        def __getattr__(self, name: str) -> Any:
            return getattr(real(), name)

        def RetrievePropertiesEx(self, *arguments: Any) -> Any:
            answer = real().RetrievePropertiesEx(*arguments)
            for seen in answer.objects:
                for one in seen.propSet:
                    if one.name == "config.hardware.device":
                        for disk in one.val:
                            if isinstance(disk, vim.vm.device.VirtualDisk):
                                disk.backing = raw(fileName=disk.backing.fileName, diskMode="persistent")
            return answer

    connection.collector = Collector  # type: ignore[method-assign, assignment]
    try:
        site = find_site(connection, options)
        for name in (SURVIVOR, server.machine(SURVIVOR)["disks"][0]["path"]):
            with pytest.raises(Unsupported, match="is a raw device"):
                find_seeds(connection, site, [name], Controller())
    finally:
        connection.close()


def test_without_a_worker_there_are_no_seeds(tmp_path: Path, server: VSphere) -> None:
    class Bulk(VmwareHarness):
        def make(self, context: Context) -> Importer:
            return VmwareImporter(replace(context, seeds=(SURVIVOR,)))

    harness = Bulk(tmp_path, server)
    with harness.open() as importer:
        [finding] = findings(harness, importer)
        assert (finding.severity, "without a worker" in finding.message) == ("error", True)
        assert "worker: {network" in finding.remedy
        point, wanted = harness.point(), harness.wanted()
        with pytest.raises(Unsupported, match="without a worker"):
            importer.stage(importer.prepare(point, wanted, harness.marker), point, wanted)
    assert harness.things() == []


@pytest.mark.parametrize("text", ["nonsense", "7", '{"a": [}'])
def test_a_note_of_what_was_lent_that_somebody_changed_is_named(text: str) -> None:
    vm = Vm(object(), "web", "", "", "poweredOff", {SEEDS: text}, (), ())
    with pytest.raises(TargetMismatch, match=r"failback\.seeds of the machine web makes no sense") as caught:
        lent_by([vm])
    assert "set it back" in caught.value.remedy


def test_a_dry_run_names_the_seeds_and_what_they_cost(harness: Seeded, survivor: Survivor) -> None:
    with harness.open() as importer:
        found = findings(harness, importer)
    assert [finding.subject for finding in found] == [f"seed {path}" for path in survivor.paths]
    assert {finding.severity for finding in found} == {"note"}
    assert f"{SURVIVOR}, which is off, cannot be switched on meanwhile" in found[0].message
    assert survivor.is_untouched()


def test_a_seed_that_another_import_has_plugged_in_is_left_to_it_and_comes_back_with_a_worker_that_went_off(
    harness: Seeded, survivor: Survivor, played: PlayedWorker, client: Client
) -> None:
    played.blind = True
    heard, done = Heard(), []
    first = Aside(lambda: done.append(stage(harness, heard=heard)))
    eventually(lambda: len(lent(harness)) == 2)
    point, wanted, marker = harness.point(), harness.wanted(name="another"), uuid.uuid4()
    with harness.open() as importer:
        place = importer.prepare(point, wanted, marker)
        with pytest.raises(TargetBusy, match="for another import"):
            importer.stage(place, point, wanted)
        assert lent(harness) == survivor.paths
        importer.remove(marker)
    assert lent(harness) == survivor.paths
    [name] = harness.workers()
    client.wait(client.named(vim.VirtualMachine, name).PowerOffVM_Task())
    played.blind = False
    heard.told("was switched off: it is started again (2 of 3)")
    first.end()
    [stage_done] = done
    assert stage_done.disks[1].counters.read == 0
    is_whole(harness, survivor)


# -- whoever dies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["the same", "with one", "removed", "cleaned", "another"])
def test_a_seed_that_a_killed_command_left_plugged_in_is_used_again_or_given_back(
    harness: Seeded, survivor: Survivor, played: PlayedWorker, client: Client, monkeypatch: pytest.MonkeyPatch,
    then: str,
) -> None:  # fmt: skip
    played.blind = True

    def doomed() -> None:
        Aside(lambda: stage(harness))
        eventually(lambda: len(lent(harness)) == 2)
        os.kill(os.getpid(), 9)

    assert in_child(doomed)
    assert len(lent(harness)) == 2
    played.blind = False
    if then == "removed":
        with harness.open() as importer:
            assert importer.remove(harness.marker)
    elif then == "cleaned":
        cleaned(harness, survivor, monkeypatch)
    elif then == "another":
        [name] = harness.workers()
        client.wait(client.named(vim.VirtualMachine, name).PowerOffVM_Task())
        harness.seeds = ()
        with harness.open() as importer:  # the worker is started anew, for whom that seed is none
            point, wanted = harness.point(), harness.wanted(name="another")
            importer.stage(importer.prepare(point, wanted, uuid.uuid4()), point, wanted)
    else:
        stage(harness, seeds=(survivor.paths[1],) if then == "with one" else None)
        is_whole(harness, survivor)
    assert lent(harness) == []
    assert survivor.is_untouched()


def cleaned(harness: Seeded, survivor: Survivor, monkeypatch: pytest.MonkeyPatch) -> None:
    """`failback clean`, for a place that stays since its disks were whole once."""
    markers = {"import": harness.marker}
    monkeypatch.setattr("pipeline.home.site.open_importer", lambda _target, context: harness.make(context))
    monkeypatch.setattr("pipeline.home.site.marker_of", lambda _id, run, _machine: markers.get(run, uuid.uuid4()))
    options = parse_mapping(harness.mapping(), where="the test").options
    ground = Ground(harness.bench.repository, harness.root / "state", options=options)
    record = Record(harness.bench.repository.document.id, "vmware", "vm", "import", "", whole=True)
    ground.places.of("vmware", harness.marker).save(record)
    for dry_run in (True, False):
        [left] = clean(ground, machine="vm", target="vmware", dry_run=dry_run)
        assert left.action == "give back"
        assert all(path in left.what for path in survivor.paths)
        assert len(lent(harness)) == (2 if dry_run else 0)
    assert [left.action for left in clean(ground, machine="vm", target="vmware")] == ["none"]


def test_a_refresh_that_is_killed_when_it_is_about_to_give_back_or_has_just_done_so_goes_on(
    harness: Seeded, survivor: Survivor, played: PlayedWorker
) -> None:
    """Its third change there, after the mark and the plugging."""
    stage(harness, seeds=())
    for sequence, nth, left in ((2, 3, 2), (1, -3, 0)):
        action: Callable[[], object] = partial(stage, harness, sequence)
        assert harness.killed(nth, action)
        assert len(lent(harness)) == left
        stage(harness, sequence)
        is_whole(harness, survivor, sequence)


def test_an_agent_that_is_killed_in_mid_write_goes_on_with_the_seed(
    tmp_path: Path, server: VSphere, played: PlayedWorker, client: Client
) -> None:
    large = LargeSeeded(tmp_path, server)
    survivor = Survivor(server, client, large.sources[1])
    large.seeds = (SURVIVOR,)
    done: list[Stage] = []
    command = Aside(lambda: done.append(stage(large)))
    eventually(lambda: written(large) > 0)
    assert played.agent is not None
    played.agent.kill()
    command.end()
    [stage_done] = done
    assert stage_done.disks[0].counters.read == 0, "nothing was fetched after all"
    is_whole(large, survivor)
