"""Whether a worker's agent runs is seen by its sign of life, when that is surely later than the machine's start."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from agent.wire import Wire
from simulators.vsphere_client import log_in
from simulators.vsphere_server import run_vsphere
from simulators.vsphere_worker import make_worker

from importers.vmware import worker
from importers.vmware.connection import Connection
from importers.vmware.find import AGENT
from importers.vmware.options import PASSWORD, parse_options
from importers.vmware.vm import look, put_marks
from pipeline.home.control import Controller


def test_no_order_is_spent_on_a_worker_that_is_seen_to_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(tmp_path / "wire")
    with run_vsphere(tmp_path / "vsphere") as server, wire.running():
        monkeypatch.setenv(PASSWORD, server.password)
        machine = make_worker(log_in(server))
        address = f"{server.address}:{server.port}"
        connection = Connection(
            parse_options({"address": address, "user": server.user, "fingerprint": server.fingerprint})
        )
        try:
            mine = connection.managed(type(machine), machine._moId)
            put_marks(connection, mine, Controller(), {AGENT: wire.agent})
            vm = look(connection, mine)
            assert vm is not None
            started = worker.values_of(connection, mine, worker.BOOTED)[worker.BOOTED]
            assert abs(started - datetime.now(UTC)) < timedelta(minutes=5)
            worker._answers(connection, vm, wire.agents.agent(wire.agent))
            assert wire.store.head(f"mailbox/{wire.agent}/orders/{1:010d}") is not None, "it was just started: asked"
            monkeypatch.setattr(worker, "CLOCKS", timedelta(minutes=-10))
            worker._answers(connection, vm, wire.agents.agent(wire.agent))
            assert wire.store.head(f"mailbox/{wire.agent}/orders/{2:010d}") is None
        finally:
            connection.close()
