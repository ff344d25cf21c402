"""An agent makes disks equal points, writes no more than differs, and proves it; whatever dies on the way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from nbd.tools import mounted, needs_root, run
from transfer.support import CHUNK, MIB, make_disk, noise, poke, same

from agent.conftest import Site
from pipeline.agent.code import PairingCode
from pipeline.agent.controller import Agents
from pipeline.agent.journal import Journal
from pipeline.agent.orders import DiskName
from pipeline.agent.poll import Pace
from pipeline.agent.program import AgentProgram
from pipeline.agent.remote import order_id
from pipeline.errors import Cancelled, TargetBusy, TargetMismatch
from pipeline.home.control import Controller
from pipeline.store.base import Store
from pipeline.store.layer import Layer
from pipeline.store.open import open_store

pytestmark = needs_root
SIZE = 24 * MIB


@pytest.fixture
def source(site: Site, tmp_path: Path) -> Path:
    """A machine's disk, exported once: every second chunk of its first half holds data."""
    disk = make_disk(tmp_path / "source", SIZE, {p * CHUNK: noise(CHUNK, p) for p in range(0, SIZE // CHUNK // 2, 2)})
    site.bench.export(disk)
    return disk


def test_a_disk_is_written_refreshed_and_proved(site: Site, source: Path) -> None:
    remote, _agent = site.paired()
    target, name = site.disk(SIZE, "disk-one")
    first = site.receive(remote, name, held=site.held(None))
    assert first.report.result["mode"] == "full"
    assert same(source, target)

    for position in (1, 64, 200):
        poke(source, position * CHUNK, noise(CHUNK, f"new {position}"))
    site.bench.export(source)
    second = site.receive(remote, name, held=site.held(1))
    assert second.report.result["mode"] == "refresh"
    assert second.report.result["written"] == 3 * CHUNK
    assert same(source, target)
    assert {"pick_up", "open", "write", "flush", "read_back", "mail"} <= set(second.steps)


def test_a_disk_of_which_nothing_is_known_is_read_first(site: Site, source: Path) -> None:
    remote, _agent = site.paired()
    target, name = site.disk(SIZE, "disk-one")
    target.write_bytes(source.read_bytes())
    poke(target, 5 * CHUNK, noise(CHUNK, "junk"))
    poke(target, 4 * CHUNK, noise(CHUNK, "other junk"))
    done = site.receive(remote, name)
    assert done.report.result["mode"] == "hashed"
    assert done.report.result["written"] == CHUNK
    assert done.report.result["discarded"] >= CHUNK
    assert same(source, target)


def test_no_other_disk_is_ever_written(site: Site, source: Path, tmp_path: Path) -> None:
    remote, _agent = site.paired()
    target, name = site.disk(SIZE, "disk-one")
    with pytest.raises(TargetMismatch, match="another size"):
        site.receive(remote, DiskName(serial=name.serial, size=SIZE + 512), held=site.held(None))
    with pytest.raises(TargetMismatch, match="not attached here"):
        site.receive(remote, DiskName(serial="disk-two", size=SIZE), held=site.held(None))
    run("mkfs.ext4", "-q", target)
    before = target.read_bytes()
    device = next(d["path"] for d in remote.inventory() if name.serial in d["serials"])
    with mounted(device, tmp_path / "mount"):
        with pytest.raises(TargetBusy, match="mounted"):
            site.receive(remote, name, held=site.held(None))
        assert next(d for d in remote.inventory() if d["path"] == device)["in_use"]
    assert target.read_bytes()[4096:8192] == before[4096:8192]


def test_a_seed_saves_fetching_and_is_not_written(site: Site, source: Path) -> None:
    remote, _agent = site.paired()
    target, name = site.disk(SIZE, "disk-one")
    survivor, seed = site.disk(SIZE, "survivor")
    survivor.write_bytes(source.read_bytes())
    poke(survivor, 8 * CHUNK, noise(CHUNK, "changed since"))
    before = survivor.read_bytes()
    done = site.receive(remote, name, held=site.held(None), seeds=(seed,)).report.result
    assert done["seeded"] == (SIZE // CHUNK // 4 - 1) * CHUNK
    assert 0 < done["fetched"] < 2 * CHUNK
    assert same(source, target)
    assert survivor.read_bytes() == before


def test_disks_are_written_side_by_side(site: Site, source: Path) -> None:
    remote, _agent = site.paired()
    disks = [site.disk(SIZE, f"disk-{number}") for number in range(3)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda disk: site.receive(remote, disk[1], held=site.held(None)), disks))
    assert all(same(source, target) for target, _name in disks)


class Gate(Layer):
    """No pack is read while it is shut."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.reached, self.open = Event(), Event()

    def get_range(self, key: str, offset: int, length: int) -> memoryview:
        if key.startswith("packs/"):
            self.reached.set()
            assert self.open.wait(60)
        return self.inner.get_range(key, offset, length)


def test_work_that_is_cancelled_here_goes_on_there_and_can_be_given_up(site: Site, source: Path) -> None:
    agent = site.pair()
    code = PairingCode.decode(site.codes[agent])
    gate = Gate(open_store(site.address))
    journal = Journal(site.root / "agent", agent)
    program = AgentProgram(gate, journal, journal.identity(code), pace=Pace(idle=0.05, fast=0.05))
    program.answer()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(program.run)
        try:
            site.agents.await_answer(agent, 60)
            target, name = site.disk(SIZE, "disk-one")
            order = order_id("slow")
            control = Controller(watch=lambda _counters: control.cancel())
            watching = Agents(site.bench.repository, site.root / "controller", control).agent(agent)
            with pytest.raises(Cancelled, match="work was cancelled"):
                site.receive(watching, name, order=order, held=site.held(None))
            assert gate.reached.wait(60)
            remote = site.agents.agent(agent)
            given_up = pool.submit(remote.abandon, order)
            while (stopping := remote._post.report(2)) is None or not stopping.ended:
                assert not given_up.done()
            gate.open.set()
            given_up.result()
            report = remote._post.report(1)
            assert report is not None
            assert report.state == "cancelled"
            remote.abandon(order)
            done = site.receive(remote, name, order=order, held=site.held(None)).report
            assert done.attempt == 2
        finally:
            gate.open.set()
            program.stop()
            running.result()
            journal.close()
    assert same(source, target)
