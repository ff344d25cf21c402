"""What traffic steps are told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.runs.decide import Hold
from runs.conftest import Disaster

Make = Callable[..., Disaster]


def test_names_of_machines_may_hold_commas(disaster: Make, tmp_path: Path) -> None:
    told = tmp_path / "told"
    tell = f"import json, os; print('open'); open({str(told)!r}, 'w').write(json.dumps(dict(os.environ)))"
    step = {"name": "dns", "kind": "command", "settings": {"open": [sys.executable, "-c", tell], "close": ["true"]}}
    group = {"name": "shop", "waves": [["db"], ["web, old"]], "traffic": [step]}
    d = disaster(machines={"db": {}, "web, old": {"needs": ["db"]}}, groups=[group])
    d.estate.add("web, old", 1 << 18)
    d.begin()
    d.conduct()
    environment = json.loads(told.read_text())
    assert environment["FAILBACK_MACHINES"].splitlines() == ["db", "web, old"]
    assert environment["FAILBACK_EPOCH"].splitlines() == ["2", "2"]


def test_a_gate_that_cannot_be_opened_is_found_before_the_takeover_side_is_touched(disaster: Make) -> None:
    step = {"name": "wires", "kind": "port-group", "settings": {"open": "lan"}}
    d = disaster(groups=[{"name": "shop", "waves": [["db"], ["web-1", "web-2"]], "traffic": [step]}])
    d.begin()
    coming = d.conduct()
    assert isinstance(coming, Hold)
    assert "networks of db cannot be switched while it runs" in coming.reason
    assert d.works_at_takeover() == ["db", "web-1", "web-2"]
    assert not d.platform.find_machines()
