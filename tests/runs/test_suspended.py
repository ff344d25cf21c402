"""A conductor is suspended before a call, or after its answer came; another one takes over, forth or back, and ends
the run; then the first wakes up. It must do no harm, and know that it is superseded."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from servers import Server

from pipeline.cli import exitcodes
from pipeline.errors import FailbackError, RunRefused, Superseded
from pipeline.runs import conductor as conducting
from pipeline.runs import succession
from pipeline.runs.decide import Ask, Hold
from runs.conftest import Disaster
from runs.test_killed import CALLS, check_back, check_home
from runs.town import Town, until

Make = Callable[..., Disaster]


MAKES = ("create_", "layer_")


class Sleeper:
    """One conductor in a thread of its own that falls asleep at its nth call of a name."""

    def __init__(self, d: Disaster, call: str, nth: int, *, after: bool) -> None:
        self.asleep, self.wake = threading.Event(), threading.Event()
        self.error: BaseException | None = None
        self._left, self._call, self._phase = nth, call, "after" if after else "before"
        self._fault = d._called
        d.estate.fault = d.store.fault = d.platform.fault = self._called
        self._thread = threading.Thread(target=self._run, args=(d,))
        self._thread.start()

    def _run(self, d: Disaster) -> None:
        try:
            d.conduct()
        except FailbackError as error:
            self.error = error
        finally:
            self.asleep.set()

    def _called(self, name: str, phase: str) -> None:
        self._fault(name, phase)
        if threading.current_thread() is self._thread or threading.current_thread().name.startswith("conductor 1_"):
            if self.wake.is_set() or not name.startswith(self._call) or phase != self._phase:
                return
            self._left -= 1
            if self._left == 0:
                self.asleep.set()
                assert self.wake.wait(60)

    def end(self) -> None:
        self.wake.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conductor that sleeps is one that gives no sign of life; the test's sleepers beat only once."""
    monkeypatch.setattr(succession, "SILENT", timedelta(seconds=-1))
    monkeypatch.setattr(conducting.Process, "alive", lambda _self, _here: None)


def others(d: Disaster, *, back: bool) -> None:
    """Another conductor, and a person who goes back, or approves."""
    d.host = "another host"
    if back and d.state().outcome is None:
        try:
            d.tell("rollback", "shop", discard=True)
        except RunRefused as refused:
            if "home for good" not in refused.message:
                d.tell("cancel")
    coming = d.conduct()
    while isinstance(coming, Ask):
        d.tell("approve")
        coming = d.conduct()
    assert not isinstance(coming, Hold), coming


@pytest.mark.parametrize("back", [False, True], ids=["forth", "back"])
@pytest.mark.parametrize("call", [call for call in CALLS if not call.startswith("put runs")])
def test_a_conductor_that_wakes_up_late_does_no_harm(disaster: Make, call: str, back: bool) -> None:
    for after in (False, True):
        for nth in (1, 3):
            d = disaster()
            d.begin()
            sleeper = Sleeper(d, call, nth, after=after)
            assert sleeper.asleep.wait(60)
            slept = sleeper.error is None and sleeper._thread.is_alive()
            others(d, back=back)
            woke_into = d.state().outcome
            sleeper.end()
            if slept:
                assert isinstance(sleeper.error, Superseded | RunRefused), sleeper.error
            assert d.double == []
            late = not after and call.split()[0] in MAKES  # it makes one thing more, which is off, and which goes again
            if woke_into == "committed" and not late:
                check_home(d)
            elif woke_into == "rolled back" and not late:
                check_back(d)


def test_one_that_slept_between_two_effects_says_that_it_was_replaced_though_the_run_is_over(disaster: Make) -> None:
    d = disaster()
    d.begin()
    first = d.conductor()

    def slept(_seconds: float) -> None:
        d.paused = lambda _seconds: None
        others(d, back=False)

    d.paused = slept
    with pytest.raises(Superseded, match="by now"):
        first.conduct(attend=True)
    assert d.state().outcome == "committed"
    check_home(d)


_BRIDGE = """
import socket, sys
from datetime import timedelta
from pipeline.cli.main import run
from pipeline.runs import succession
host, silent = sys.argv.pop(1), float(sys.argv.pop(1))
socket.gethostname = lambda: host
succession.SILENT = timedelta(seconds=silent)
run()
"""
"""`failback` on a host of that name, where a conductor counts as silent after so many seconds."""
_SECONDS = 8.0
"""More than lie between two signs of life."""


@pytest.mark.slow
def test_a_process_that_was_suspended_ends_when_it_wakes_up_and_another_host_went_on(
    tmp_path: Path, minio_endpoint: Server
) -> None:
    """With the patience of real life: `python -m runs.estate.suspended`."""
    town = Town(tmp_path, address=minio_endpoint.address())

    def on(host: str, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _BRIDGE, host, str(_SECONDS), *map(str, words)]
        return subprocess.Popen(command, env=town.environment(host), stderr=subprocess.PIPE, text=True)

    assert town.failback("repository", "init").returncode == 0
    town.stops_at("db", "lock")
    first = on("bridge-1", "run", "start", town.plan)
    try:
        until(lambda: town.reached("db"))
        first.send_signal(signal.SIGSTOP)
        town.stops_at("db", "nothing")
        while "is conducted by" in (second := on("bridge-2", "run", "conduct", "town")).communicate(timeout=120)[1]:
            pass  # it gave signs of life until just before
        assert second.returncode == exitcodes.RUN_ASKS
        assert on("bridge-2", "run", "approve", "town").wait(120) == exitcodes.OK
        entries = town.entries("town")
        first.send_signal(signal.SIGCONT)
        said = first.communicate(timeout=60)[1]
    finally:
        first.kill()
        first.wait()
    assert "on bridge-2 by now" in said
    assert first.returncode == Superseded.exit_code
    assert town.entries("town") == entries, "it wrote into the journal"
    assert town.state("town") == "committed"
    assert (town.home(), town.takeover()) == (1, {"db": False})
    assert sum(e["done"] and e["effect"] == "boot/db" for e in town.entries("town", "ended")) == 1
