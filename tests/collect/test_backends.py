"""Collection on every kind of store: the listing, the clock and the deletes of the real thing."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, same

from pipeline.catalogue import forget
from pipeline.collect.collector import Collection
from pipeline.collect.plan import Plan
from pipeline.store.base import Store


def test_what_is_forgotten_goes_and_the_rest_restores(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LEAST_GRACE", "RECALL"):
        monkeypatch.setattr(f"pipeline.collect.collector.{name}", timedelta())
    monkeypatch.setattr("pipeline.collect.collector.SKEW", 0.0)
    bench = Workbench(tmp_path, store)
    source = make_disk(tmp_path / "source", MIB, {0: noise(9 * CHUNK, 1)})
    bench.export(source)
    bench.export(source, full=True)
    forget(bench.repository, bench.point(1), reason="old")
    kept = [info.key for info in store.list("packs/")]
    plan = _planned(bench)
    assert plan.packs is not None
    assert plan.packs.doomed.count == 1
    assert plan.points_gone == ["vm@1"]
    Collection(bench.repository, grace=timedelta(), apply=True).run()
    left = [info.key for info in store.list("packs/")]
    assert len(left) == len(kept) - 1
    assert [info.key[-1] for info in store.list("manifests/")] == ["2"]
    assert not list(store.list("sessions/vm/0000000001")), "nobody needs it"
    bench.verified()
    bench.restore()
    assert same(source, bench.restored())
    assert bench.export(source).sequence == 3


def _planned(bench: Workbench) -> Plan:
    """A plan made when the store's clock, which may tell whole seconds only, has left the last write behind."""
    limit = time.monotonic() + 30
    while True:
        plan = Collection(bench.repository, grace=timedelta()).run()
        if plan.points_gone and plan.sessions_gone == ["vm@1", "vm@2"]:
            return plan
        assert time.monotonic() < limit, plan
