"""The benchmark of refreshes at a tiny size: every figure is there, and adds up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers import tool

from scripts.bench.refresh import BETWEEN, REST, Refreshed, Refreshes, Uploaded
from scripts.bench.tool import ROOT

GIB, MIB = 1 << 30, 1 << 20
TINY = ("--sizes", "0.06", "0.12", "--data", "0.01", "0.02", "--chunks", "16", "--repeats", "1", "--rest", "0",
        "--disks", "2", "--each", "0.01")  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")
@pytest.mark.slow
def test_where_each_second_goes(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "scripts.bench", "refresh", *TINY, "--work", tmp_path, "--json", figures]
    # Tests have a home of their own, without what was built before.
    environment = {**os.environ, "FAILBACK_TOOLS": str(Path(tool("vsphere")).parent)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    [disks] = found["rounds"]
    assert len(disks) == 2
    for one in disks:
        assert one["written"] == one["changed"] == 16 * 65536
        assert {"preflight", "attach", "pick_up", "write", "flush", "read_back", "detach", "build", "boot"} < set(
            one["steps"]
        )
        assert sum(one["steps"].values()) == pytest.approx(one["seconds"])
        assert all(seconds >= 0 for step, seconds in one["steps"].items() if step not in (BETWEEN, REST))
    assert found["bulk"]["disks"] == 1
    assert found["several"]["disks"] == 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("bench-")], "nothing is left"


def test_promises_that_are_broken_are_named() -> None:
    def measured(small: float, large: float, *, written: int = 100, peak: int = 100 * MIB) -> list[bool | None]:
        refreshes = Refreshes((20 * GIB, 200 * GIB), "worker")
        refreshes.rounds.append(tuple(Refreshed(s, {"boot": s}, written, 100, peak) for s in (small, large)))
        refreshes.bulk = Uploaded(30.0, GIB, 1, peak, {})
        return [bound.check().met for bound in refreshes.bounds()]

    assert measured(8.0, 9.5) == [True] * 5
    assert measured(8.0, 9.7) == [False, True, True, True, True]
    assert measured(9.7, 8.0) == [True, False, True, True, True]
    assert measured(8.0, 8.0, written=111) == [True, True, False, True, True]
    assert measured(10.5, 10.5) == [True, True, True, False, True]
    assert measured(8.0, 8.0, peak=257 * MIB) == [True, True, True, True, False]
