"""A controller and an agent in one process, and what the owner of the bucket can do to their mail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from manifests.mail import Channel, bell_key, order_key
from pipeline.agent.clock import StoreClock
from pipeline.agent.code import PairingCode
from pipeline.agent.controller import Agents
from pipeline.agent.journal import Journal
from pipeline.agent.orders import Bell, Order
from pipeline.agent.poll import Pace
from pipeline.agent.program import AgentProgram
from pipeline.agent.remote import Remote
from pipeline.home.control import Controller
from pipeline.repository import Repository
from pipeline.store.base import Store
from pipeline.store.memory import MemoryStore

QUICK = 0.01


class Wire:
    """One repository in memory; its mailbox is looked at and tampered with through `store`."""

    def __init__(self, root: Path, store: Store | None = None) -> None:
        self.root = root
        self.store = store or MemoryStore()
        self.repository = Repository.init(self.store)
        self.agents = self.controller("controller")
        self.code = self.agents.pair("worker", "memory://wire")
        self.said: list[str] = []
        self.devices = {"sda"}
        """Of the agent's host."""

    @property
    def agent(self) -> str:
        return self.code.agent

    def controller(self, name: str) -> Agents:
        """A host that controls; another name is another host."""
        return Agents(
            self.repository,
            self.root / name,
            Controller(),
            sleep=lambda _seconds: threading.Event().wait(QUICK) and None,
        )

    def program(self, name: str = "agent", code: PairingCode | None = None, idle: float = QUICK) -> AgentProgram:
        """The agent on a host of this name."""
        journal = Journal(self.root / name, self.agent)
        return AgentProgram(
            self.store,
            journal,
            journal.identity(code or self.code),
            pace=Pace(idle=idle, fast=QUICK),
            tell=self.said.append,
            devices=lambda: frozenset(self.devices),
        )

    @contextmanager
    def running(self, name: str = "agent", idle: float = QUICK) -> Iterator[AgentProgram]:
        """The agent at work, paired."""
        program = self.program(name, idle=idle)
        program.answer()
        thread = threading.Thread(target=program.run)
        thread.start()
        try:
            self.agents.await_answer(self.agent, 30)
            yield program
        finally:
            program.stop()
            thread.join()
            program.journal.close()

    @property
    def remote(self) -> Remote:
        return self.agents.agent(self.agent)

    @property
    def channel(self) -> Channel:
        """The controller's: for a test that writes what it would not."""
        return self.agents.known.pairing(self.agent).channel

    def forge(self, number: int, /, *, channel: Channel | None = None, key: str = "", **fields: Any) -> None:
        """An order as the controller would write it, but for some fields, put at its place; the bell tells of it."""
        clock = StoreClock()
        clock.learn(self.store, f"mailbox/{self.agent}/clock", b"\n")
        alive = self.remote.alive()
        assert alive is not None
        body: dict[str, Any] = {
            "number": number, "order": f"{number:032x}", "attempt": 1, "run": alive.run, "issued": clock.after(0),
            "expires": clock.after(600), "verb": "inventory", "params": {},
        }  # fmt: skip
        order = Order.model_validate(body | fields)
        place = key or order_key(self.agent, number)
        self.put(place, (channel or self.channel).write(place, order.model_dump(mode="json")))
        self.ring(number)

    def put(self, key: str, data: bytes) -> None:
        """As the owner of the bucket."""
        self.store.put(key, data)

    def ring(self, number: int) -> None:
        key = bell_key(self.agent)
        self.store.put(key, self.channel.write(key, Bell(number=number).model_dump(mode="json")))

    def fate(self, number: int) -> tuple[str, str]:
        """(state, kind of the error) of what came of an order, once it has ended."""
        for _ in range(3000):
            report = self.remote._post.report(number)
            if report is not None and report.ended:
                return report.state, report.error.kind if report.error else ""
            threading.Event().wait(QUICK)
        raise AssertionError(f"nothing came of order {number}: {self.said}")
