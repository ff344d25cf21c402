"""Readers of indexes do not wait for one another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.repository import Repository
from pipeline.store.layer import Layer
from pipeline.transfer.index_reader import IndexReader
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise


class Stuck(Layer):
    """Answers to gets come when the test lets them."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench.store)
        self.asked, self.released = threading.Event(), threading.Event()
        self.gets = 0

    def get(self, key: str) -> memoryview:
        self.gets += 1
        self.asked.set()
        assert self.released.wait(30)
        return self.inner.get(key)


def test_a_reader_that_waits_for_the_store_holds_nobody_else_up(tmp_path: Path) -> None:
    """A cached_property would, up to Python 3.11: one lock for all objects of a class."""
    bench = Workbench(tmp_path)
    bench.export(make_disk(tmp_path / "source", MIB, {0: noise(4 * CHUNK, 1)}))
    disk = bench.point().manifest.disks[0]
    stuck = Stuck(bench)
    slow = IndexReader(Repository(stuck, bench.repository.document, bench.repository.sealing), disk)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(lambda: slow.directory) for _ in range(2)]
        try:
            assert stuck.asked.wait(30)
            quick = pool.submit(lambda: IndexReader(bench.repository, disk).directory).result(timeout=10)
        finally:
            stuck.released.set()
    assert [future.result().positions for future in waiting] == [quick.positions] * 2
    assert stuck.gets == 1, "and two of one reader ask once"
