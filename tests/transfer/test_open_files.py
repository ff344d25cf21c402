"""Whatever ends an export or a restore, the files of its indexes are closed: agents and conductors live on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import FailbackError, StoreUnavailable
from pipeline.store.fault import Fail, FaultyStore, Rule
from pipeline.store.memory import MemoryStore
from transfer.support import CHUNK, Workbench, make_disk, noise, poke


def open_indexes() -> set[str]:
    """What this process has open of local copies of indexes."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = str(fd.readlink())
        except FileNotFoundError:
            continue  # the listing's own
        if target.removesuffix(" (deleted)").rpartition("/")[2] in ("rows", "nodes", "places"):
            found.add(f"{fd.name} {target}")
    return found


def at_every_request(bench: Workbench, work: Callable[[Workbench], object]) -> set[str]:
    """Do the work on the same repository and state with each of its requests refused in turn; returns which of them
    failed it. A target is left as the try before left it."""
    objects = {info.key: bytes(bench.store.get(info.key)) for info in bench.store.list("")}
    kept = bench.root / "kept"
    bench.state.mkdir(exist_ok=True)
    shutil.copytree(bench.state, kept)

    def begin(*faults: Rule) -> FaultyStore:
        shutil.rmtree(bench.state)
        shutil.copytree(kept, bench.state)
        store = MemoryStore()
        for key, data in objects.items():
            store.put(key, data)
        return FaultyStore(store, faults)

    before = open_indexes()
    counting = begin()
    work(bench.through(counting))
    assert open_indexes() <= before, "when all is well"
    failed = set()
    for number in range(1, len(counting.history) + 1):
        faulty = begin(Rule(Fail(StoreUnavailable("down")), nth=number, last=number))
        try:
            work(bench.through(faulty))
        except FailbackError:
            verb, key = faulty.history[-1]
            failed.add(f"{verb} {key.split('/')[0]}")
        assert open_indexes() <= before, faulty.history
    return failed


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "source", 12 * CHUNK, {0: noise(6 * CHUNK, 1)})


@pytest.mark.parametrize("how", ["known", "from another host", "with a base", "dry run", "full"])
def test_an_export_that_fails_at_any_request_leaves_none_open(bench: Workbench, source: Path, how: str) -> None:
    bench.export(source, machine="golden")
    bench.export(source)
    if how == "from another host":
        shutil.rmtree(bench.state)
    poke(source, 2 * CHUNK, noise(CHUNK, how))
    options = {
        "with a base": {"bases": (bench.point(machine="golden"),)},
        "dry run": {"dry_run": True},
        "full": {"full": True},
    }.get(how, {})
    failed = at_every_request(bench, lambda b: b.export(source, **options))
    wanted = {"get pages"} if how == "from another host" else {"get manifests"} if how == "dry run" else {"put packs"}
    assert wanted <= failed


@pytest.mark.parametrize("how", ["full", "refresh", "hashed", "unchanged", "forecast"])
def test_a_restore_that_fails_at_any_request_leaves_none_open(bench: Workbench, source: Path, how: str) -> None:
    bench.export(source)
    if how != "full":
        bench.restore()
    if how not in ("full", "unchanged"):
        poke(source, 2 * CHUNK, noise(CHUNK, how))
        bench.export(source)
    if how == "hashed":
        poke(bench.restored(), 3 * CHUNK, b"somebody was here")

    def work(bench: Workbench) -> None:
        if how in ("refresh", "full"):
            bench.restore(sequence=1)
            shutil.rmtree(bench.out) if how == "full" else None
        bench.restore(dry_run=how == "forecast")

    assert at_every_request(bench, work) & {"get pages", "get_range packs", "get manifests"}
