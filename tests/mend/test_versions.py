"""Where readers take older versions checks say so and name the remedy; a repair makes the good version the newest."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulators.versioned_store import VersionedStore
from transfer.support import Workbench, same

from manifests.names import manifest_key, tombstone_key
from mend.bench import by_listing, by_reading, filled, pack_at
from pipeline.catalogue import forget
from pipeline.mend.findings import Findings
from pipeline.mend.repair import repair
from pipeline.mend.stand_in import with_stand_ins
from pipeline.repository import Repository
from pipeline.verify.listing import verify_listing
from pipeline.verify.reading import verify_reading

SAYS = "an older version is whole: nothing is lost, and `failback repair` puts it back"


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path, VersionedStore())


def fresh(bench: Workbench) -> Repository:
    """As another process opens it."""
    return Repository(bench.store, bench.repository.document, bench.repository.sealing)


def overwrite(bench: Workbench, key: str, *, same_length: bool = True) -> None:
    size = len(bench.store.get(key)) if same_length else 9
    bench.store.put(key, b"\xaa" * size)


def check(findings: Findings, *keys: str) -> None:
    assert {d.key: d.kept for d in findings.damages} == dict.fromkeys(keys, True)
    assert all(SAYS in d.detail for d in findings.damages)
    assert findings.harms == []
    assert len(findings.open) == len(keys), "it is damage all the same: older versions may run out"


@pytest.mark.parametrize("same_length", [True, False])
def test_an_overwritten_pack_is_named_and_not_called_lost(bench: Workbench, same_length: bool) -> None:
    disk = filled(bench)
    key = pack_at(bench, 20)
    overwrite(bench, key, same_length=same_length)
    if not same_length:
        check(by_listing(fresh(bench)), key)
        [problem] = verify_listing(fresh(bench), bench.point()).problems
        assert key in problem
        assert SAYS in problem
    check(by_reading(fresh(bench), bench.state)[1], key)
    [problem] = verify_reading(fresh(bench), bench.point()).problems
    assert key in problem
    assert SAYS in problem
    mended(bench, disk, key)


def test_a_deleted_pack_is_named_and_not_called_lost(bench: Workbench) -> None:
    disk = filled(bench)
    key = pack_at(bench, 20)
    bench.store.delete_many([key])
    check(by_listing(fresh(bench)), key)
    for verified in (verify_listing(fresh(bench), bench.point()), verify_reading(fresh(bench), bench.point())):
        [problem] = verified.problems
        assert SAYS in problem
    mended(bench, disk, key)


@pytest.mark.parametrize("deleted", [True, False])
def test_index_objects_and_manifests_are_named_too(bench: Workbench, deleted: bool) -> None:
    disk = filled(bench)
    keys = [info.key for prefix in ("pages/", "manifests/") for info in bench.store.list(prefix)]
    bench.export(disk, full=True)
    point = bench.point(1)
    for key in keys:
        if deleted:
            bench.store.delete_many([key])
        else:
            overwrite(bench, key)
    verified = verify_reading(fresh(bench), point)
    assert {problem.partition(" ")[0] for problem in verified.problems} == {k for k in keys if k.startswith("pages/")}
    assert all(SAYS in problem for problem in verified.problems)
    check(by_reading(fresh(bench), bench.state)[1], *keys)
    mended(bench, disk, *keys)


def mended(bench: Workbench, disk: Path, *keys: str) -> None:
    repaired = repair(fresh(bench))
    assert {d.key for d in repaired.from_versions} == set(keys)
    assert repaired.left.damages == []
    assert repair(fresh(bench)).from_versions == []
    assert not by_reading(fresh(bench), bench.state)[1].damages
    bench.verified(1)
    bench.restore(1)
    assert same(disk, bench.restored())


def test_a_damaged_tombstone_gets_its_first_version_back(bench: Workbench) -> None:
    disk = filled(bench)
    bench.export(disk, full=True)
    forget(bench.repository, bench.point(1), reason="old")
    key = tombstone_key("vm", 1)
    good = bytes(bench.store.get(key))
    overwrite(bench, key)
    assert [d.key for d in repair(fresh(bench)).from_versions] == [key]
    assert bytes(bench.store.get(key)) == good


def test_what_no_version_fits_is_lost_as_before(bench: Workbench) -> None:
    filled(bench)
    key = pack_at(bench, 20)
    store = bench.store
    assert isinstance(store, VersionedStore)
    overwrite(bench, key)
    overwrite(bench, key)
    store.delete_versions(store.list_versions(key)[2:])
    findings = by_reading(fresh(bench), bench.state)[1]
    assert [(d.key, d.kept) for d in findings.damages] == [(key, False)]
    assert findings.harms[0].ranges
    assert SAYS not in "".join(verify_reading(fresh(bench), bench.point()).problems)
    assert repair(fresh(bench)).from_versions == []


def test_without_a_key_the_bytes_tell(bench: Workbench) -> None:
    filled(bench)
    key = manifest_key("vm", 1)
    overwrite(bench, key)
    from pipeline.mend.scrub import check_places

    [damage] = with_stand_ins(bench.store, check_places(bench.store))
    assert (damage.key, damage.kept) == (key, True)
