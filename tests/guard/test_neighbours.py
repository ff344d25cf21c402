"""Repositories side by side leave each other alone; one inside another is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from guard.conftest import Make
from pipeline.errors import UsageError
from pipeline.guard.neighbours import refuse_nested
from pipeline.repository import Repository
from pipeline.store.address import DirectoryAddress
from pipeline.store.memory import MemoryStore
from pipeline.store.open import open_store


def init(folder: Path) -> None:
    address = DirectoryAddress(folder)
    store = open_store(address, create=True)
    refuse_nested(address, store, open_store)
    Repository.init(store)


def test_below_and_above_are_refused_in_directories(tmp_path: Path) -> None:
    init(tmp_path / "a" / "b")
    init(tmp_path / "a" / "c")
    for place in ("a", "a/b/packs/x", "."):
        with pytest.raises(UsageError, match="one inside the other"):
            init(tmp_path / place)
    init(tmp_path / "d")


def test_below_and_above_are_refused_in_a_bucket(make_site: Make, disk: Path) -> None:
    site = make_site()
    site.good("repository", "init")
    site.good("export", "web", "--disk", disk)
    before = site.keys("")
    for prefix in ("", "site", "site/repository/packs/inner", "site/repository/x"):
        place = site.address.replace("/site/repository?", f"/{prefix}?")
        done = site.run("repository", "init", "--repository", place)
        assert done.code == 2, done.err
        assert "one inside the other" in done.err
    beside = site.address.replace("/site/repository?", "/site/repository-2?")
    site.good("repository", "init", "--repository", beside)
    site.good("export", "web", "--disk", disk, "--repository", beside)
    site.good("export", "web", "--disk", disk, "--repository", beside)
    site.good("forget", "web@1", "--reason", "x", "--repository", beside)
    assert [key for key in site.keys("") if not key.startswith("-2/")] == before
    site.good("verify", "web", "--read")


def test_a_document_of_somebody_else_is_no_repository() -> None:
    store = MemoryStore()
    store.put("other/repository.json", b'{"name": "something else"}')
    refuse_nested(DirectoryAddress(Path("/nowhere")), store, open_store)


def test_foreign_folders_do_not_hide_an_inner_repository() -> None:
    store, inner = MemoryStore(), MemoryStore()
    Repository.init(inner)
    for folder in range(100):
        for number in range(60):
            store.put(f"a{folder:03}/{number:03}", b"x")
    store.put("b/c/repository.json", bytes(inner.get("repository.json")))
    with pytest.raises(UsageError, match="b/c"):
        refuse_nested(DirectoryAddress(Path("/nowhere")), store, open_store)
