"""The benchmark of downtimes at a tiny size: every figure is there, and adds up."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import tool

from scripts.bench.downtime import PARTS, STEPS, WITH, WITHOUT, Down, Downtimes
from scripts.bench.tool import ROOT

GIB = 1 << 30
TINY = ("--sizes", "0.03", "--chunks", "16", "--repeats", "1", "--contrast", "0")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: a socket's is at most 107 characters long."""
    with tempfile.TemporaryDirectory(prefix="failback-") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_where_each_second_of_a_cutover_goes(tmp_path: Path, short: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "scripts.bench", "downtime", *TINY, "--work", short, "--json", figures]
    # Tests have a home of their own, without what was built before.
    environment = {**os.environ, "FAILBACK_TOOLS": str(Path(tool("minio")).parent)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())["found"]
    assert [one["way"] for one in found] == [WITH]
    for one in found:
        assert tuple(one["steps"]) == STEPS
        assert sum(one["steps"].values()) == pytest.approx(one["seconds"])
        assert one["seconds"] < one["until_verified"]
        assert one["written"] == 16 * 65536
        for verb, parts in PARTS.items():
            assert tuple(one["parts"][verb]) == parts
            assert sum(one["parts"][verb].values()) <= one["steps"][verb]
    assert not [path for path in short.iterdir() if path.name.startswith("bench-")], "nothing is left"
    assert not any(
        str(tmp_path) in path.read_text("latin-1") for path in Path("/proc").glob("[0-9]*/environ") if _qemu(path)
    )


def _qemu(environ: Path) -> bool:
    try:
        return b"qemu-system" in (environ.parent / "cmdline").read_bytes()
    except OSError:
        return False


def test_a_slope_is_named() -> None:
    def measured(mapped: dict[int, list[float]], contrast: dict[int, list[float]]) -> list[bool | None]:
        found = Downtimes(tuple(size * GIB for size in mapped), 1024)
        for way, figures in ((WITH, mapped), (WITHOUT, contrast)):
            for size, repeats in figures.items():
                found.found += [Down(size * GIB, way, s, {}, {}, s, 0) for s in repeats]
        return [check.met for check in found.checks()]

    flat = {1: [2.0, 2.1, 2.0], 4: [2.1, 2.0, 2.0], 8: [2.1, 2.1, 2.0]}
    steep = {1: [3.0], 4: [6.0], 8: [10.0]}
    assert measured(flat, steep) == [True, True]
    assert measured(flat, {}) == [True]
    assert measured(flat, flat) == [True, False], "a measurement that sees no slope where there is one says nothing"
    assert measured({**flat, 8: [2.4, 2.4, 2.3]}, steep) == [False, True]
    assert measured({**flat, 8: [1.6, 1.6, 1.7]}, steep) == [False, True], "nor is less for more what is promised"
    assert measured({**flat, 8: [2.2, 2.3, 2.6]}, steep) == [True, True], "repeats differ as much"
    loud = {**flat, 4: [2.0, 2.6, 2.0]}
    assert measured({**loud, 8: [2.4, 2.4, 2.4]}, steep) == [None, True], "repeats differ by too much to tell"
    assert measured({**loud, 8: [2.7, 2.7, 2.7]}, steep) == [False, True]
    assert measured(loud, steep) == [True, True], "what is no longer needs no excuse"
