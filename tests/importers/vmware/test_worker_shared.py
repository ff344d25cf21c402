"""One worker, several hosts and commands: they take turns, and nobody takes it from who is alive."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from simulators.vsphere_server import VSphere
from simulators.vsphere_worker import PlayedWorker
from transfer.killing import in_child

# The harness of the contract suite beside us.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract.vmware import VmwareOwnWorkerHarness

from importers.vmware import worker
from pipeline.agent import use
from pipeline.errors import PlaceHeld
from pipeline.home.control import Controller
from pipeline.place import Stage
from pipeline.target import marker_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")
SECONDS = 300.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use, "BEAT", 0.5)
    monkeypatch.setattr(use, "SILENT", 5.0)
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.1)


@pytest.fixture
def one(tmp_path: Path, server: VSphere) -> VmwareOwnWorkerHarness:
    """A host, which brings a machine home."""
    return VmwareOwnWorkerHarness(tmp_path, server).on("one")


@pytest.fixture
def two(one: VmwareOwnWorkerHarness) -> VmwareOwnWorkerHarness:
    """Another host."""
    return one.on("two")


def bring(host: VmwareOwnWorkerHarness, name: str, sequence: int = 1, control: Controller | None = None) -> Stage:
    """The disks of a machine with this name."""
    point, wanted = host.point(sequence), host.wanted(sequence, name=name)
    marker = marker_of(host.bench.repository.document.id, "contract", name)
    with host.open(control) as importer:
        return importer.stage(importer.prepare(point, wanted, marker), point, wanted)


class Aside:
    """Something that goes on beside the test."""

    def __init__(self, action: Callable[[], object], seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self.error: BaseException | None = None
        self._action = action
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._action()
        except BaseException as error:  # noqa: BLE001 - told at the end
            self.error = error

    def end(self) -> None:
        self._thread.join(self._seconds)
        assert not self._thread.is_alive(), "it does not end"
        if self.error is not None:
            raise self.error


class Heard(Controller):
    """Remembers what was told."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._new = threading.Condition()

    def tell(self, text: str) -> None:
        with self._new:
            self._lines.append(text)
            self._new.notify_all()

    def told(self, text: str) -> None:
        """Wait for a line with this text."""
        with self._new:
            found = self._new.wait_for(lambda: any(text in line for line in self._lines), SECONDS)
            assert found, f"no {text!r} in {self._lines}"


def starts(server: VSphere) -> int:
    return int(server.report()["calls"].get("PowerOnVM_Task", 0))


def test_another_host_waits_until_the_worker_is_free(
    one: VmwareOwnWorkerHarness, two: VmwareOwnWorkerHarness, server: VSphere, played: PlayedWorker
) -> None:
    played.blind = True
    first = Aside(lambda: bring(one, "a"))
    eventually(lambda: len(one.worker()["disks"]) == 3 if one.workers() else False)
    heard = Heard()
    second = Aside(lambda: bring(two, "b", control=heard))
    heard.told("waiting for another host to be done with the worker")
    assert (starts(server), played.boots) == (1, 1)
    played.blind = False
    first.end()
    second.end()
    assert (starts(server), played.boots) == (2, 2), "it was started anew for the second host, once the first was done"
    assert one.equals(bring(one, "a"), 1)
    assert two.equals(bring(two, "b"), 1)
    assert starts(server) == 2, "nothing had to be written any more"


def test_a_host_that_is_dead_loses_the_worker_and_goes_on_later(
    one: VmwareOwnWorkerHarness, two: VmwareOwnWorkerHarness, server: VSphere, played: PlayedWorker
) -> None:
    played.blind = True

    def killed() -> None:
        Aside(lambda: bring(one, "a"))
        eventually(lambda: len(one.worker()["disks"]) == 3 if one.workers() else False)
        os.kill(os.getpid(), 9)

    assert in_child(killed)
    played.blind = False
    heard = Heard()
    assert two.equals(bring(two, "b", control=heard), 1)
    heard.told("or to be dead")
    assert len(two.worker()["disks"]) == 1, "what the dead host had plugged in kept its machine from being started"
    again = bring(one, "a")
    assert one.equals(again, 1)
    assert sorted(server.report()["machines"])[:2] == ["a", "b"]
    assert len(one.workers()) == 1
    assert server.report()["orphans"] == []


def test_who_waited_long_enough_is_told_who_has_the_worker(
    one: VmwareOwnWorkerHarness, two: VmwareOwnWorkerHarness, server: VSphere, played: PlayedWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(worker, "PATIENCE_SECONDS", 2.0)
    played.blind = True
    first = Aside(lambda: bring(one, "a"))
    eventually(lambda: len(one.worker()["disks"]) == 3 if one.workers() else False)
    with pytest.raises(PlaceHeld, match="used by another host's command") as caught:
        bring(two, "b")
    assert "run the same command again" in caught.value.remedy
    assert starts(server) == 1
    played.blind = False
    first.end()


def test_a_host_that_needs_the_worker_in_the_very_moment_keeps_it(
    one: VmwareOwnWorkerHarness, two: VmwareOwnWorkerHarness, server: VSphere, played: PlayedWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Between the second host's look and its mark the first says that it needs the worker."""
    bring(one, "a")
    real = worker._Taking._marked
    began: list[Aside] = []

    def late(self: worker._Taking, vm: object, agent: str, change: str) -> bool:
        if not began:
            played.blind = True
            began.append(Aside(lambda: bring(one, "a", 2)))
            eventually(lambda: len(one.worker()["disks"]) == 3)
            # What it plugged in changed the machine: the mark would be refused for that.
            change = one.worker()["change_version"]
        return bool(real(self, vm, agent, change))  # type: ignore[arg-type]

    monkeypatch.setattr(worker._Taking, "_marked", late)
    heard = Heard()
    second = Aside(lambda: bring(two, "b", control=heard))
    heard.told("waiting for another host")
    assert starts(server) == 1, "the first host's worker runs"
    played.blind = False
    [first] = began
    first.end()
    second.end()
    assert one.equals(bring(one, "a", 2), 2)
    assert played.boots == 2


def test_a_change_by_somebody_else_keeps_the_mark_as_it_is(
    one: VmwareOwnWorkerHarness, two: VmwareOwnWorkerHarness, server: VSphere, played: PlayedWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Two hosts take the free worker at once: one mark counts, and the other host looks again."""
    bring(one, "a")
    real = worker._Taking._marked
    refused: list[bool] = []

    def stale(self: worker._Taking, vm: object, agent: str, change: str) -> bool:
        done = bool(real(self, vm, agent, change if refused else "1"))  # type: ignore[arg-type]
        refused.append(not done)
        return done

    monkeypatch.setattr(worker._Taking, "_marked", stale)
    assert two.equals(bring(two, "b"), 1)
    assert refused == [True, False]


def test_two_hosts_that_begin_at_once_make_one_worker(
    one: VmwareOwnWorkerHarness, two: VmwareOwnWorkerHarness, server: VSphere, played: PlayedWorker
) -> None:
    asides = [Aside(lambda: bring(one, "a")), Aside(lambda: bring(two, "b"))]
    for aside in asides:
        aside.end()
    assert len(one.workers()) == 1
    assert one.equals(bring(one, "a"), 1)
    assert two.equals(bring(two, "b"), 1)
    assert server.report()["orphans"] == []


def test_two_commands_of_one_host_use_one_worker_side_by_side(
    one: VmwareOwnWorkerHarness, server: VSphere, played: PlayedWorker
) -> None:
    asides = [Aside(lambda: bring(one, "a")), Aside(lambda: bring(one, "b"))]
    for aside in asides:
        aside.end()
    assert played.boots == 1
    assert one.equals(bring(one, "a"), 1)
    assert one.equals(bring(one, "b"), 1)
    assert len(one.worker()["disks"]) == 1


def eventually(true: Callable[[], object], seconds: float = SECONDS) -> None:
    pause = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if true():
            return
        pause.wait(0.05)
    raise AssertionError("it does not come to be")
