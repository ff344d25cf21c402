"""The contract: what is read has all that the machine acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest
from transfer.support import Workbench

from pipeline.errors import SourceError, Unsupported
from sources.contract.harness import MACHINE, Harness


@pytest.fixture
def reader(harness: Harness) -> Harness:
    """Only of sources that give disks."""
    if not harness.able.reads:
        pytest.skip("it gives no disks")
    return harness


def at_rest(harness: Harness, epoch: int = 1) -> None:
    """Ready for the last point."""
    harness.do("stop" if harness.able.quiesce == "none" else "quiesce", epoch)


def test_a_source_that_gives_no_disks_says_so(harness: Harness) -> None:
    if harness.able.reads:
        pytest.skip("it gives them")
    with pytest.raises(Unsupported):
        harness.read()


def test_a_reading_of_a_machine_at_work_is_of_one_moment_of_it(reader: Harness) -> None:
    assert reader.works()
    before = reader.acknowledged()
    [disk, *_] = reader.read()
    assert before <= reader.written(disk) <= reader.acknowledged() + 1
    assert reader.works(), "it goes on working"


def test_the_last_point_has_all_that_was_acknowledged_before_it_was_at_rest(reader: Harness) -> None:
    assert reader.works()
    at_rest(reader)
    assert reader.silent()
    promised = reader.acknowledged()
    assert promised > 0
    for _ in range(2):  # of another process the same
        [disk, *_] = reader.read(final=True)
        assert reader.written(disk) >= promised
    assert reader.acknowledged() == promised


def test_the_last_point_of_a_machine_at_work_is_refused(reader: Harness) -> None:
    with pytest.raises(SourceError):
        reader.read(final=True)
    at_rest(reader)
    reader.do("resume", 2)
    assert reader.works()
    with pytest.raises(SourceError):
        reader.read(final=True)


def test_a_stopped_machine_can_still_be_read(reader: Harness) -> None:
    assert reader.works()
    for verb in ("stop", "prove_stopped", "lock"):
        reader.do(verb)
    [disk, *_] = reader.read(final=True)
    assert reader.written(disk) >= reader.acknowledged()


@pytest.mark.parametrize("told", [True, False])
def test_points_follow_one_another_to_the_last(reader: Harness, tmp_path: Path, told: bool) -> None:
    """Also when the source never learns that a point was committed."""
    bench = Workbench(tmp_path / "bench")
    assert reader.works()
    parent = None
    for _ in range(2):
        reader.export(bench, parent=parent, told=told)
        parent = bench.point(machine=MACHINE)
        assert reader.works()
    at_rest(reader)
    promised = reader.acknowledged()
    result = reader.export(bench, parent=parent, final=True)
    [restored, *_] = bench.restore(machine=MACHINE)
    disk = Path(restored.target).read_bytes()
    assert reader.written(disk) >= promised
    assert disk == reader.read(final=True)[0]
    if reader.able.changes and told:
        assert (result.disks[0].mode, result.disks[0].counters.read < len(disk)) == ("changed blocks", True)
