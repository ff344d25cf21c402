"""The clock starts a run when its conditions hold, and no second one of the same version."""

from __future__ import annotations

from pathlib import Path

import pytest
from plans.conftest import Scene, kinds, scene, shop

from pipeline.plans.parse import parse_plan
from pipeline.plans.stored import put
from pipeline.runs.begin import begin
from pipeline.runs.entries import Finished
from pipeline.runs.journal import Journal
from pipeline.schedule.conditions import Over, earlier, waiting

__all__ = ["kinds", "scene"]

CONDITIONS = [
    {"name": "fresh", "kind": "point-age", "settings": {"younger": "1h", "machines": ["db"]}},
    {"name": "takeover", "kind": "source"},
    {"name": "go", "kind": "flag", "settings": {"flag": "go"}},
    {"name": "night", "kind": "command", "when": "cutover", "settings": {"argv": ["false"]}},
]


def test_what_is_waited_for_is_said_and_flags_and_conditions_of_cutovers_are_left_to_the_run(scene: Scene) -> None:
    scene.plan = parse_plan(shop(conditions=CONDITIONS), where="test")
    scene.source.down = True
    assert list(waiting(scene.world())) == ["fresh", "takeover"]
    scene.source.down = False
    assert list(waiting(scene.world())) == ["fresh"]
    scene.export("db")
    assert waiting(scene.world()) == {}


@pytest.mark.parametrize("outcome", ["committed", "rolled back", "cancelled"])
def test_a_version_is_run_once_by_the_clock_however_that_ended(scene: Scene, tmp_path: Path, outcome: str) -> None:
    repository = scene.bench.repository
    stored, _ = put(repository, scene.plan, shop())
    assert earlier(repository, stored) is None
    begin(repository, stored, "rehearsal")
    assert earlier(repository, stored) is None
    run = begin(repository, stored).run
    assert earlier(repository, stored) == run
    Journal(repository, run).append(Finished.model_validate({"conductor": 0, "outcome": outcome}))
    assert earlier(repository, stored) == Over(run, outcome)
    document = shop(on_failure="rollback")
    later, _ = put(repository, parse_plan(document, where="test"), document)
    assert earlier(repository, later) is None
