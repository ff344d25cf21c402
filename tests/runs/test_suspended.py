"""A conductor is suspended before a call, or after its answer came; another one takes over, forth or back, and ends
the run; then the first wakes up. It must do no harm, and know that it is superseded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from pipeline.errors import FailbackError, RunRefused, Superseded
from pipeline.runs import conductor as conducting
from pipeline.runs import succession
from pipeline.runs.decide import Ask, Hold
from runs.conftest import Disaster
from runs.test_killed import CALLS, check_back, check_home

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
