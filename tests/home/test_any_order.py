"""Commands in any order, killed anywhere: one machine, nothing left over, a stage that is what it says."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from simulators.kinds import KINDS

from home.conftest import Home
from pipeline.errors import CatalogueError, NotReady, TargetBusy, Unsupported

POINTS = st.sampled_from([1, 2])
KILLS = st.one_of(st.none(), st.integers(1, 30))
SAID = (TargetBusy, NotReady, CatalogueError, Unsupported)
"""What a command may say instead of doing it."""


class AnyOrder(RuleBasedStateMachine):
    @initialize(kind=st.sampled_from(sorted(KINDS)))
    def begin(self, kind: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.patch = pytest.MonkeyPatch()
        self.home = Home(Path(self.folder.name) / "home", KINDS[kind], self.patch)

    def _run(self, action: Callable[[], object], kill: int | None) -> None:
        with contextlib.suppress(*SAID):
            self.home.killed(kill or 10**9, action, after=bool(kill and kill % 2))

    @rule(point=POINTS, boot=st.booleans(), kill=KILLS)
    def bring(self, point: int, boot: bool, kill: int | None) -> None:
        self._run(lambda: self.home.bring(point, boot=boot), kill)

    @rule(point=POINTS, kill=KILLS)
    def rehearse(self, point: int, kill: int | None) -> None:
        self._run(lambda: self.home.rehearse(point), kill)

    @rule(point=POINTS, kill=KILLS)
    def try_out(self, point: int, kill: int | None) -> None:
        self._run(lambda: self.home.try_out(point), kill)

    @rule(layer=st.sampled_from(["leave", "keep", "drop"]), kill=KILLS)
    def stop(self, layer: str, kill: int | None) -> None:
        self._run(lambda: self.home.stop(layer), kill)  # type: ignore[arg-type]

    @rule(kill=KILLS)
    def clean(self, kill: int | None) -> None:
        self._run(self.home.clean, kill)

    @invariant()
    def never_two_machines_at_one_place(self) -> None:
        if hasattr(self, "home"):
            for run in ("import", "verify"):
                assert len(self.home.platform.find_machines(marker=self.home.marker(run))) <= 1

    @invariant()
    def a_stage_that_is_trusted_is_what_it_says(self) -> None:
        if not hasattr(self, "home"):
            return
        place = self.home.place()
        if place is None or place.stage is None or place.state not in ("staged", "layered"):
            return
        importer = self.home._open("simulated", self.context())
        if importer.check(place.stage) == "" and not (place.build and place.build.booted):
            source = self.home.sources[place.stage.sequence]
            disk = self.home.platform.disks[place.stage.ref["0"]]
            assert bytes(disk.data[: len(source)]) == source

    def context(self) -> object:
        from pipeline.target import Context

        ground = self.home.ground
        return Context(ground.repository, ground.state / "targets" / "simulated", ground.control, lambda _m: None)  # type: ignore[arg-type,return-value]

    def teardown(self) -> None:
        """Whatever happened, this leads to nothing."""
        if not hasattr(self, "home"):
            return
        home = self.home
        if home.abilities.power == "api":
            with contextlib.suppress(CatalogueError):
                home.stop("leave")
        else:
            for machine in home.platform.machines.values():
                machine.on = False
        home.clean()
        verify = home.marker("verify")
        assert not home.platform.find_disks(marker=verify), "a verification left something"
        assert not home.platform.find_machines(purpose="rehearsal")
        home.clean(machine="vm", target="simulated", everything=True, kept_too=True)
        assert home.things() == []
        self.patch.undo()
        self.folder.cleanup()


AnyOrder.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAnyOrder = AnyOrder.TestCase
