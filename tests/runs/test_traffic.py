"""What traffic steps are told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

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
