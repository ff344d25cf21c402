"""The benchmark of the least a restore takes, at a tiny size: every part is there, and adds up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers import tool

from scripts.bench.floor import Floor, Parts
from scripts.bench.tool import ROOT

MIB = 1 << 20
SIZE = 64 * MIB


@pytest.mark.slow
def test_every_part_of_a_restore_is_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "scripts.bench", "floor", "--size", str(SIZE / (1 << 30)), "--repeats", "2"]
    # Tests have a home of their own, without what was built before.
    environment = {**os.environ, "FAILBACK_TOOLS": str(Path(tool("restic")).parent)}
    done = subprocess.run(
        [*command, "--work", tmp_path, "--json", figures],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    assert len(found["restic"]) == len(found["failback"]) == 2
    parts = {one["way"]: one for one in found["parts"]}
    exported, plain = parts["zstd 1"], parts["not compressed"]
    for name in ("receive", "open", "decode", "hash", "write"):
        assert 0 < exported[name] < 5, name
    assert all(one["serve"] >= 0 for one in parts.values()), "the kernel counts in steps of 10 ms"
    assert 0.3 * SIZE < exported["written"] < 0.6 * SIZE
    assert plain["decode"] < 0.1 * exported["decode"]
    assert exported["stored"] < 0.8 * plain["stored"]
    assert exported["written"] <= plain["stored"] < 1.3 * exported["written"]
    if "lz4" in parts:
        assert exported["stored"] < parts["lz4"]["stored"] < plain["stored"]
        assert parts["lz4"]["decode"] < exported["decode"]
    assert "most times restic" in done.stdout
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("bench-")], "nothing is left"


def test_what_a_perfect_program_reaches() -> None:
    parts = Parts("zstd 1", 100 * MIB, 200 * MIB, serve=0.7, receive=0.5, open=0.1, decode=1.0, hash=0.2, write=0.7)
    found = Floor(SIZE, restic=[4.2, 3.5, 2.0], failback=[2.1, 2.0, 2.0], parts=[parts], cores=2)
    assert parts.whole == pytest.approx(3.2)
    assert found.allowed() == pytest.approx(2.0)
    assert found.reached(parts.whole) == pytest.approx(7 / 3.2)
    lines = {line[: len("allowed: 3.5 times restic")].strip(): line.split()[-1] for line in found.table().splitlines()}
    assert lines["sum"] == "3.20"
    assert lines["allowed: 3.5 times restic"] == "2.00"
    assert lines["most times restic"] == "2.19"
    assert lines["without the hash"] == "2.33"
    assert lines["nor encryption"] == "2.41"
