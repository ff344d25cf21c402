"""Versions of plans are written once and read as they were written, on every kind of store."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulators.versioned_store import VersionedStore
from transfer.support import Workbench

from manifests.envelope import Kind
from manifests.manifest import encode_record
from pipeline.errors import AlreadyExists, CatalogueError, CorruptObject, KeyRefused, NewerFormat, UsageError
from pipeline.keys.locks import KeyFile
from pipeline.keys.ring import put_slot, revoke
from pipeline.keys.signed import signed_by
from pipeline.plans.parse import parse_plan
from pipeline.plans.stored import Stored, parse_version, plan_names, put, read, versions
from pipeline.repository import Repository
from pipeline.store.base import Bytes, Store
from pipeline.store.layer import Layer
from plans.conftest import shop


def keep(repository: Repository, **changed: Any) -> tuple[Stored, bool]:
    document = shop(**changed)
    return put(repository, parse_plan(document, where="test"), document)


def test_versions_are_numbered_and_the_same_is_not_stored_again(store: Store, tmp_path: Path) -> None:
    repository = Repository.init(store, lock=KeyFile(tmp_path / "key"))
    first, new = keep(repository)
    assert (first.version, new, first.label) == (1, True, "shop@1")
    assert keep(repository) == (first, False)
    # Written in another way, it means the same.
    assert keep(repository, approvals={"valid": "8h"}) == (first, False)
    second, new = keep(repository, on_failure="rollback")
    assert (second.version, new) == (2, True)
    assert second.digest != first.digest
    # What was before is a version of its own again: the newest counts.
    assert keep(repository)[0].version == 3
    keep(repository, name="mail")
    assert plan_names(repository) == ["mail", "shop"]
    assert versions(repository, "shop") == [1, 2, 3]
    assert read(repository, "shop").version == 3
    assert read(repository, "shop", 2).plan.on_failure == "rollback"
    assert read(repository, "shop", 1) == first
    assert first.document == shop()


def test_what_is_not_there_is_named_with_what_is(bench: Workbench) -> None:
    with pytest.raises(CatalogueError, match="there is no plan 'shop'") as caught:
        read(bench.repository, "shop")
    assert "plan put" in caught.value.remedy
    keep(bench.repository)
    with pytest.raises(CatalogueError, match="there is no plan 'mail'") as caught:
        read(bench.repository, "mail")
    assert "shop" in caught.value.remedy
    with pytest.raises(CatalogueError, match="plan shop has no version 2") as caught:
        read(bench.repository, "shop", 2)
    assert "it has 1" in caught.value.remedy


class Lossy(Layer):
    """The first creation of a version is stored, and its answer lost; whoever tries again finds it."""

    lost = False

    def put(self, key: str, data: Bytes, *, create: bool = False) -> None:
        self.inner.put(key, data, create=create)
        if key.startswith("plans/") and not self.lost:
            self.lost = True
            raise AlreadyExists(f"{key} exists")


def test_a_lost_answer_makes_no_second_version(bench: Workbench) -> None:
    assert keep(bench.through(Lossy(bench.store)).repository)[0].version == 1
    assert versions(bench.repository, "shop") == [1]


@pytest.mark.parametrize("conditional", [True, False])
def test_racing_writers_lose_no_version(bench: Workbench, conditional: bool) -> None:
    abilities = {**bench.repository.document.abilities, "conditional_put": conditional}
    bench.repository.document = replace(bench.repository.document, abilities=abilities)
    found: list[Stored] = []

    def one(number: int) -> None:
        found.append(keep(bench.repository, limits={"parallel": number})[0])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if conditional:
        assert sorted(stored.version for stored in found) == [1, 2, 3, 4, 5, 6]
        for stored in found:
            assert read(bench.repository, "shop", stored.version) == stored
    assert read(bench.repository, "shop", versions(bench.repository, "shop")[-1]).plan.name == "shop"


def write(bench: Workbench, record: dict[str, Any], key: str = "plans/shop/0000000001") -> None:
    sealing = bench.repository.sealing
    bench.store.put(key, encode_record(Kind.RECORD, record, sealing=sealing, key=key))


def test_a_plan_of_a_newer_failback_is_not_half_understood(bench: Workbench) -> None:
    write(bench, {"format": 1, "plan": shop(moonlight=True), "time": "", "by": ""})
    with pytest.raises(NewerFormat, match="shop@1: moonlight is not known"):
        read(bench.repository, "shop")
    write(bench, {"format": 2, "plan": shop(), "time": "", "by": ""})
    with pytest.raises(NewerFormat, match="newer failback"):
        read(bench.repository, "shop")


def test_what_lies_at_the_wrong_place_is_refused(bench: Workbench) -> None:
    write(bench, {"format": 1, "plan": shop(name="mail"), "time": "", "by": ""})
    with pytest.raises(CorruptObject, match="holds plan mail"):
        read(bench.repository, "shop")
    write(bench, {"format": 1, "time": "", "by": ""})
    with pytest.raises(CorruptObject, match="holds no plan"):
        read(bench.repository, "shop")


def test_kinds_that_are_not_installed_do_not_hide_a_stored_plan(bench: Workbench) -> None:
    write(bench, {"format": 1, "plan": shop(target="moon"), "time": "", "by": ""})
    assert read(bench.repository, "shop").plan.target == "moon"


def test_a_plan_outlives_the_key_of_who_stored_it(bench: Workbench, tmp_path: Path) -> None:
    repository, lock = bench.repository, KeyFile(tmp_path / "other key")
    ring = repository.sealing.ring
    slot = put_slot(bench.store, repository.document, ring, lock, role="importer", label="b", create=True)
    first, _ = keep(Repository.open(bench.store, lambda: [lock]))
    revoke(bench.store, repository.document, ring, slot, signed_by(repository, slot), create=True)
    assert read(Repository.open(bench.store, lambda: [KeyFile(tmp_path / "key")]), "shop") == first


def test_an_exporter_stores_no_plan(bench: Workbench, tmp_path: Path) -> None:
    lock = KeyFile(tmp_path / "other key")
    ring = bench.repository.sealing.ring
    put_slot(bench.store, bench.repository.document, ring, lock, role="exporter", label="b", create=True)
    with pytest.raises(KeyRefused):
        keep(Repository.open(bench.store, lambda: [lock]))
    assert plan_names(bench.repository) == []


@pytest.mark.parametrize("harm", ["deleted", "overwritten"])
def test_where_versions_of_objects_are_kept_a_plan_comes_back(tmp_path: Path, harm: str) -> None:
    store = VersionedStore()
    repository = Repository.init(store)
    first, _ = keep(repository)
    key = "plans/shop/0000000001"
    if harm == "deleted":
        store.delete_many([key])
    else:
        store.put(key, b"nothing of failback")
    assert read(repository, "shop", 1) == first
    assert repository.stood_in == {key}


@pytest.mark.parametrize(
    ("text", "meant"), [("shop", ("shop", None)), ("shop@latest", ("shop", None)), ("shop@3", ("shop", 3))]
)
def test_versions_are_named_like_points(text: str, meant: tuple[str, int | None]) -> None:
    assert parse_version(text) == meant


@pytest.mark.parametrize("text", ["", "Shop", "a/b", "shop@", "shop@0", "shop@x", "shop@99999999999", "-a", "shop@٣"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_version(text)
