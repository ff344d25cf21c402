"""A run executes the plan that it began with, and no other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from manifests.envelope import Kind
from manifests.manifest import encode_record
from manifests.names import plan_key
from pipeline.errors import RunRefused
from pipeline.plans.stored import read
from pipeline.runs.begin import begin, find_run
from runs.conftest import Disaster

Make = Callable[..., Disaster]


def test_a_plan_that_was_written_over_is_refused(disaster: Make) -> None:
    d = disaster()
    d.begin()
    assert find_run(d.repository, d.run)[1].plan == d.plan
    other = d.plan.model_dump(mode="json") | {"approvals": {"cutover": False, "commit": False}}
    key = plan_key("shop", 1)
    record = {"format": 1, "plan": other, "time": "2026-11-30T00:00:00Z", "by": "somebody"}
    d.store.put(key, encode_record(Kind.RECORD, record, sealing=d.repository.sealing, key=key))
    with pytest.raises(RunRefused, match="wrote over it"):
        find_run(d.repository, d.run)
    with pytest.raises(RunRefused, match=r"shop@1 with digest"):
        begin(d.repository, read(d.repository, "shop", 1))
