"""An agent that is killed at any step goes on when it runs again; the order is done once, and the disk is right."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nbd.tools import needs_root
from transfer.killing import in_child, kill_at
from transfer.support import CHUNK, MIB, make_disk, noise, poke, same

from agent.conftest import Site
from pipeline.agent import journal as journal_module
from pipeline.agent.code import PairingCode
from pipeline.agent.journal import Journal
from pipeline.agent.orders import Held, Receive
from pipeline.agent.poll import Pace
from pipeline.agent.program import AgentProgram
from pipeline.agent.remote import order_id, point_disk
from pipeline.store.directory import DirectoryStore
from pipeline.store.open import open_store
from pipeline.transfer.stage import Stage
from pipeline.writers.device import DeviceWriter

pytestmark = needs_root
SIZE = 24 * MIB
STEPS = {
    "write": (DeviceWriter, "write"),
    "flush": (DeviceWriter, "flush"),
    "read back": (DeviceWriter, "read_into"),
    "note of the disk": (Stage, "save"),
    "journal": (journal_module, "write_durably"),
    "store": (DirectoryStore, "put"),
}


def work_until_done(site: Site, code: str, number: int) -> None:
    """The agent, until it has reported the end of this order, or a time that is far too long."""
    pairing = PairingCode.decode(code)
    journal = Journal(site.root / "agent", pairing.agent)
    program = AgentProgram(
        open_store(site.address), journal, journal.identity(pairing), pace=Pace(idle=0.01, fast=0.01), parallel=2
    )
    program.answer()

    deadline = time.monotonic() + 120

    def watch() -> None:
        while not (journal.handled >= number and not journal.taken() and not journal.unsent()):
            if time.monotonic() > deadline:
                break
            threading.Event().wait(0.01)
        program.stop()

    threading.Thread(target=watch, daemon=True).start()
    program.run()
    journal.close()


@pytest.mark.parametrize("vouched", [True, False])
@pytest.mark.parametrize("step", sorted(STEPS))
@pytest.mark.parametrize("nth", [1, -1, 3])
def test_a_killed_agent_goes_on(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, nth: int, vouched: bool
) -> None:
    source = make_disk(tmp_path / "source", SIZE, {p * CHUNK: noise(CHUNK, p) for p in range(0, 300, 2)})
    site.bench.export(source)
    target, name = site.disk(SIZE, "killed")
    agent = site.pair()
    in_child(lambda: answer_only(site, agent))
    site.agents.await_answer(agent, 30)
    remote = site.agents.agent(agent)
    for sequence, held in ((1, None), (2, 1)):
        point = point_disk(site.bench.point(sequence), 0)
        word = site.held(held) if vouched else None
        params = Receive(disk=name, point=point, held=word).model_copy(update={"keys": remote.keys()})
        order = order_id("kill", sequence)
        sent = remote.send(order, "receive", params)

        def work(number: int = sent.number) -> None:
            work_until_done(site, site.codes[agent], number)

        def killed(work: Callable[[], None] = work) -> None:
            kill_at(monkeypatch, [STEPS[step]], nth)
            work()

        in_child(killed)
        in_child(work)
        done = remote.perform(order, "receive", params)
        assert done.report.number == sent.number
        assert done.report.state == "done"
        assert same(source, target)
        for position in (1, 64, 200, 299):
            poke(source, position * CHUNK, noise(CHUNK, f"new {position} {sequence}"))
        site.bench.export(source)


def answer_only(site: Site, agent: str) -> None:
    """The agent answers its code, gives a sign of life, and ends."""
    pairing = PairingCode.decode(site.codes[agent])
    journal = Journal(site.root / "agent", pairing.agent)
    program = AgentProgram(open_store(site.address), journal, journal.identity(pairing))
    program.answer()
    program._sign_of_life()
    journal.close()


def test_a_worker_that_lost_its_memory_is_told_again_and_writes_only_what_is_missing(
    site: Site, tmp_path: Path
) -> None:
    """A worker lives in memory: after a reset it knows neither its keys nor its disks, and is another agent."""
    source = make_disk(tmp_path / "source", SIZE, {p * CHUNK: noise(CHUNK, p) for p in range(0, 300, 2)})
    site.bench.export(source)
    target, name = site.disk(SIZE, "reset")
    remote, process = site.paired()
    site.receive(remote, name, held=Held())
    for position in (1, 64, 200, 299):
        poke(source, position * CHUNK, noise(CHUNK, f"new {position}"))
    site.bench.export(source)
    process.kill()
    (site.root / "agent").rename(site.root / "lost")

    remote, _process = site.paired("worker-again")
    order = order_id("refresh", os.urandom(4))
    # What an attempt before the reset may have written of the new point already.
    poke(target, 64 * CHUNK, noise(CHUNK, "new 64"))
    done = site.receive(remote, name, order=order, held=site.held(1))
    assert done.report.result["mode"] == "refresh"
    assert done.report.result["written"] == 3 * CHUNK
    assert same(source, target)
