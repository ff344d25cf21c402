"""A conductor whose home is VMware is killed while vSphere works for it: another goes on, and there is one machine."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulators.vsphere_server import VSphere, run_vsphere
from simulators.vsphere_worker import PlayedWorker

from importers.vmware import layer
from importers.vmware.connection import Connection
from importers.vmware.target import VmwareImporter
from pipeline.runs.decide import Hold
from pipeline.target import Context, Importer
from runs.conftest import Disaster
from runs.stand_in import PASSWORD, at_home, options_of, starts
from runs.test_killed import back, to_the_end
from runs.town import Town, until

BUILD = ("cannot take a snapshot", "cannot build", "cannot switch")
"""Calls on the way home, by what is said when they fail: the layer, the machine on it, its start."""
DROP = ("cannot switch", "cannot revert", "drop")
"""And on the way back, once home was started: off, the disks as they were, the layer away."""
numbers = itertools.count(1)
"""Of disasters, which share a site."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VSphere]:
    with run_vsphere(tmp_path_factory.mktemp("vsphere")) as running:
        yield running
        assert running.report()["problems"] == []


class AtVmware(Disaster):
    """Two machines in two waves. Every order to vSphere is a call at which the conductor may be killed."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, server: VSphere) -> None:
        self.number = next(numbers)
        super().__init__(
            root,
            patch,
            target="vmware",
            mapping={
                "name": f"{{name}}-{self.number}",
                "networks": {"*": "VM Network"},
                "mac": "new",
                "options": {"vmware": options_of(server)},
            },
            machines={"db": {}, "web-1": {"needs": ["db"]}},
            groups=[{"name": "shop", "waves": [["db"], ["web-1"]]}],
        )
        self.server = server
        self.before = starts(server)
        patch.setenv(PASSWORD, server.password)
        patch.setattr("pipeline.home.site.open_importer", self._importer)
        order, asked, remove = Connection.order, Connection.asked, layer.remove

        def ordering(connection: Connection, what: Callable[[], Any], about: str) -> Any:
            if about.startswith("cannot switch") and about.endswith(" on"):
                self._alone(about)
            return self._around(about, lambda: order(connection, what, about))

        def asking(connection: Connection, question: Callable[[], Any]) -> Any:
            self._called("ask", "before")
            return asked(connection, question)

        def removing(*arguments: Any) -> None:
            self._around("drop", lambda: remove(*arguments))

        patch.setattr(Connection, "order", ordering)
        patch.setattr(Connection, "asked", asking)
        patch.setattr(layer, "remove", removing)
        self.estate.watch = self._turned

    def _importer(self, target: str, context: Context) -> Importer:
        return VmwareImporter(replace(context, options=options_of(self.server)))

    def _around(self, name: str, act: Callable[[], Any]) -> Any:
        """An order may be taken and its answer lost: vSphere goes on with its task."""
        self._called(name, "before")
        answer = act()
        self._called(name, "after")
        return answer

    def _live(self) -> None:
        for name in ("db", "web-1"):
            self.estate.request(name)

    def _alone(self, about: str) -> None:
        """Nothing is started at home while its machine works, or could start, at the takeover site."""
        name = about.removeprefix("cannot switch ").removesuffix(f"-{self.number} on")
        machine = self.estate.machines[name]
        if machine.power != "off" or not machine.locked:
            self.double.append(name)

    def _turned(self, name: str, power: str) -> None:
        if power == "on" and self.home().get(name, ("poweredOff", 0))[0] != "poweredOff":
            self.double.append(name)

    def home(self) -> dict[str, tuple[str, int]]:
        tail = f"-{self.number}"
        return {name.removesuffix(tail): state for name, state in at_home(self.server).items() if name.endswith(tail)}

    def check(self, states: dict[str, tuple[str, int]], started: int) -> None:
        """Of this disaster's machines, and what is left of all."""
        assert self.double == []
        assert self.home() == states
        assert starts(self.server) - self.before == started
        assert self.server.report()["orphans"] == []
        assert self.server.report()["leases"] == []


@pytest.fixture
def disaster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: VSphere) -> AtVmware:
    return AtVmware(tmp_path, monkeypatch, server)


@pytest.mark.parametrize(("call", "after"), [*((call, True) for call in BUILD), (BUILD[-1], False)])
def test_a_kill_while_a_machine_is_built_and_started_leaves_one(disaster: AtVmware, call: str, after: bool) -> None:
    d = disaster
    d.begin()
    assert d.killed(2, lambda: to_the_end(d), after=after, only=call), d.state().stand
    to_the_end(d)
    assert d.state().outcome == "committed"
    d.check({"db": ("poweredOn", 1), "web-1": ("poweredOn", 1)}, started=2)
    assert d.works_at_takeover() == ["web-2"], "it is none of the plan's"


@pytest.mark.parametrize(("call", "after"), [*((call, True) for call in DROP), (DROP[-1], False)])
def test_a_kill_while_a_layer_is_thrown_away_leaves_the_takeover_side(
    disaster: AtVmware, call: str, after: bool
) -> None:
    d = disaster
    d.bad = {"web-1": "502"}
    d.begin()
    assert isinstance(d.conduct(), Hold)
    d.tell("rollback", "shop")
    assert d.killed(2, d.conduct, after=after, only=call), d.state().stand
    back(d)
    assert d.state().outcome == "rolled back"
    d.check(dict.fromkeys(d.home(), ("poweredOff", 0)), started=2)
    assert len(d.home()) == 2
    assert d.works_at_takeover() == ["db", "web-1", "web-2"]


class VmwareTown(Town):
    """Its home is VMware, with a worker that failback makes there."""

    def __init__(self, root: Path, server: VSphere, *machines: str) -> None:
        self.vsphere = server
        super().__init__(root, *machines)

    def _plan(self) -> dict[str, Any]:
        (self.root / "worker.raw").write_bytes(bytes(1 << 20))
        worker = {"network": "VM Network", "image": str(self.root / "worker.raw"), "idle": 1, "login": ""}
        mapping = {
            "networks": {"*": "VM Network"},
            "mac": "new",
            "options": {"vmware": options_of(self.vsphere) | {"worker": worker}},
        }
        plan = super()._plan()
        for machine in plan["machines"].values():
            machine["checks"] = [{"name": "true", "hook": "exec", "settings": {"path": "/bin/true"}}]
        return plan | {"target": "vmware", "mapping": mapping}

    def environment(self, host: str = "host") -> dict[str, str]:
        return super().environment(host) | {PASSWORD: self.vsphere.password}


@pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")
def test_a_worker_moves_only_the_last_difference_though_its_conductor_is_killed_in_the_midst_of_that(
    tmp_path: Path, server: VSphere
) -> None:
    town = VmwareTown(tmp_path, server, "db", "web")
    before = starts(server)
    with PlayedWorker(server, tmp_path / "worker") as played:
        try:
            run = town.begin()
            town.stops_at("db", "quiesce")
            first = town.serve()
            until(lambda: town.reached("db"), why=lambda: town.said(0))
            disk = town.folder("db") / "disk"
            data = bytearray(disk.read_bytes())
            data[70_000:70_010] = b"last words"
            disk.write_bytes(data)
            played.blind = True
            (town.folder("db") / "wait").write_text("nothing")
            until(lambda: any("refresh/db" in str(e) for e in town.entries(run, "intended")), why=lambda: town.said(0))
            until(lambda: len(plugged(server)) > 1, why=lambda: town.said(0))
            first.kill()
            first.wait()
            played.blind = False
            done = town.failback("run", "conduct", run)
            assert done.returncode == 15, done.stdout + done.stderr
            assert town.failback("run", "approve", run, "--by", "Ada").returncode == 0
            assert town.state(run) == "committed"
        finally:
            town.end()
        assert played.boots == 1
        effects = town._shown(run)["effects"]
        refreshed = effects["refresh/db"]["result"]
        # Compared as a whole where the kill came before it was noted that the disk is plugged in for this.
        assert [d["mode"] for d in refreshed["disks"]] in (["refresh"], ["hashed"])
        assert refreshed["written"] == 65536
        assert effects["refresh/web"]["result"]["written"] == 0
        assert starts(server) - before == 3, "the worker, and each machine once"
        assert server.report()["orphans"] == []


def plugged(server: VSphere) -> list[str]:
    """Disks of the worker."""
    machines = server.report()["machines"]
    return [disk["path"] for name, m in machines.items() if name.startswith("failback-worker-") for disk in m["disks"]]
