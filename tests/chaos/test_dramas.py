"""The plays that need a sleeper or a second host end well, and not with a product in which something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos import dramas
from chaos.dramas import Drama, planted
from chaos.ledger import Fault
from chaos.world import World

FAULTS: dict[str, tuple[str, str, str, Drama, str]] = {
    "nobody is fenced": (
        "pipeline/collect/collector.py",
        "                        fence(self.repository, key)\n",
        "                        pass\n",
        dramas.a_writer_sleeps_longer_than_the_grace,
        "verify db@2",
    ),
    "a commit replaces what is there": (
        "pipeline/transfer/commit.py",
        "repository.store.put(key, data, create=repository.conditional_put)",
        "repository.store.put(key, data)",
        dramas.another_host_takes_over,
        "committed twice",
    ),
    "a tombstone counts at once": (
        "pipeline/collect/collector.py",
        "since = self.plan.time - max(self.grace, RECALL.total_seconds())",
        "since = self.plan.time",
        dramas.a_forgotten_point_comes_back,
        "unforget db@1",
    ),
}


@pytest.mark.slow
def test_who_sleeps_or_is_overtaken_loses_nothing(tmp_path: Path) -> None:
    with World(tmp_path, 1, own_disk=False).there() as world:
        for drama in dramas.DRAMAS:
            drama(world)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_product_is_found(fault: str, tmp_path: Path) -> None:
    file, right, wrong, drama, found = FAULTS[fault]
    sources = planted(tmp_path / "planted", file, right, wrong)
    with World(tmp_path, 1, sources=sources, own_disk=False).there() as world, pytest.raises(Fault, match=found):
        drama(world)
