"""Whatever is done to any stored object of a repository is noticed and named, or does no harm; no wrong byte comes out.

Two levels: every byte of every small object, looked at by what opens it; and for one object of each kind (in the
nightly profile: for each) a choice of damages, looked at by everything that anybody does with a repository.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from blake3 import blake3

from manifests.entry import PackTable
from manifests.envelope import Kind, place_checksum
from manifests.manifest import decode_manifest, decode_record
from manifests.names import manifest_key, pack_key, page_key
from manifests.pack import read_table
from pipeline.catalogue import points
from pipeline.errors import CorruptObject, FailbackError, KeyRefused
from pipeline.keys.locks import KeyFile
from pipeline.repository import Repository
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.pack_lists import packs_of
from pipeline.transfer.session import read_journal
from transfer.estate import MACHINES, Estate, Trial, Wrong, build, flips, kind_of, truncations
from transfer.support import Workbench

NIGHTLY = bool(os.environ.get("FAILBACK_NIGHTLY"))
BY_ID = {
    Kind.PAGE: "page",
    Kind.SEGMENT: "segment",
    Kind.PACK_LIST: "list",
    Kind.PAGE_DIRECTORY: "directory",
    Kind.SEGMENT_TABLE: "table",
}


@pytest.fixture(scope="module", params=["plain", "encrypted"])
def estate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Estate:
    root = tmp_path_factory.mktemp("estate") / str(request.param)
    return build(root, encrypted=request.param == "encrypted")


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with patch("os.fsync", lambda _fd: None):
        yield


def stored(estate: Estate) -> list[str]:
    """All but the few documents that are read when a repository is opened."""
    return sorted(key for key in estate.objects if key not in opened_with(estate))


def opened_with(estate: Estate) -> list[str]:
    return sorted(key for key in estate.objects if key == "repository.json" or key.startswith("keys/"))


def by_place(key: str) -> bool:
    return not key.startswith(("packs/", "pages/"))


def checked_again(key: str, data: bytes) -> bytes:
    """With the checksum that anyone can make anew."""
    return data[:-32] + place_checksum(data[:-32], key)


def open_whole(repository: Repository, key: str, data: bytes, kind: Kind) -> None:
    """Open it as who needs all of it does."""
    sealing = repository.sealing
    if kind == Kind.PACK:
        if blake3(data).hexdigest() != key.rpartition("/")[2]:
            raise CorruptObject(f"{key} is damaged")
        read_table(data, sealing=sealing, name=key)
    elif kind in BY_ID:
        repository.get_page_object(kind, bytes.fromhex(key.rpartition("/")[2]))
    elif kind in (Kind.MANIFEST, Kind.VOID):
        decode_manifest(data, sealing=sealing, key=key)
    elif kind == Kind.JOURNAL:
        read_journal(repository, key, PackTable())
    else:
        decode_record(data, kind, sealing=sealing, key=key)


def test_the_estate_has_an_object_of_every_kind_that_an_export_writes(estate: Estate) -> None:
    kinds = {Kind(estate.objects[key][40]) for key in stored(estate)}
    rare = {Kind.SET, Kind.SEGMENT_TABLE, Kind.HEARTBEAT}
    assert kinds == set(Kind) - rare
    trial = Trial(estate, estate.with_objects(estate.objects, estate.bench.root / "whole"), "nothing")
    trial.run()
    assert not trial.noticed, "what is whole is used without a complaint"


def test_every_byte_of_every_small_object_counts(estate: Estate) -> None:
    objects = dict(estate.objects)
    bench = estate.with_objects(objects, estate.bench.root / "bytes")
    source = random.Random(1)
    for key in stored(estate):
        data = estate.objects[key]
        kind = Kind(data[40])
        small = len(data) < 4096
        places = list(range(len(data))) if small else [*range(256), *(source.randrange(len(data)) for _ in range(64))]
        for name, wrong in [*flips(data, places), *truncations(data)]:
            if by_place(key) and estate.bench.repository.sealing.encrypted and "flipped" in name:
                _refused(bench, key, checked_again(key, wrong), kind, name, data)
            _refused(bench, key, wrong, kind, name, data)
        bench.store.put(key, data)


def _refused(bench: Workbench, key: str, wrong: bytes, kind: Kind, name: str, right: bytes) -> None:
    if wrong == right:
        return  # only the checksum was damaged, and it was made anew
    bench.store.put(key, wrong)
    with pytest.raises(FailbackError) as caught:
        open_whole(bench.repository, key, wrong, kind)
    assert key in str(caught.value), f"{name}: {caught.value}"


def test_every_byte_of_what_opens_a_repository_counts(estate: Estate) -> None:
    bench = estate.with_objects(estate.objects, estate.bench.root / "opened")
    locks = [KeyFile(estate.bench.root / "key")]
    assert Repository.open(bench.store, lambda: locks).id == bench.repository.id
    for key in opened_with(estate):
        data = estate.objects[key]
        for name, wrong in [*flips(data, range(len(data))), *truncations(data)]:
            bench.store.put(key, wrong)
            with pytest.raises(FailbackError) as caught:
                Repository.open(bench.store, lambda: locks)
            assert key in str(caught.value) or isinstance(caught.value, KeyRefused), f"{name}: {caught.value}"
        bench.store.put(key, data)


# -- everything that anybody does --------------------------------------------------------------------------------------


def needed(estate: Estate) -> set[str]:
    """What some usable point is made of, and what says that others are not usable: damage to these must be noticed.

    Of the rest (objects of forgotten points, sessions) it is enough that nothing wrong comes of it."""
    repository = estate.bench.repository
    found = {manifest_key("vm", 4)} | {key for key in estate.objects if key.startswith("tombstones/")}
    for machine in MACHINES:
        for point in points(repository, machine):
            found.add(manifest_key(machine, point.manifest.sequence))
            for disk in point.manifest.disks:
                found |= {page_key(page) for page in IndexReader(repository, disk).objects()}
                found |= {pack_key(pack) for pack in packs_of(repository, disk)}
    return found


def chosen(estate: Estate) -> list[str]:
    """One object of each kind that is needed, and one that is not, or all of them."""
    if NIGHTLY:
        return stored(estate)
    found: dict[tuple[str, bool], str] = {}
    for key in sorted(stored(estate), reverse=True):
        found.setdefault((kind_of(key, estate.objects[key]), key in needed(estate)), key)
    return sorted(found.values())


def damages(estate: Estate, key: str, source: random.Random) -> Iterator[tuple[str, bytes]]:
    data = estate.objects[key]
    sealed = estate.bench.repository.sealing.encrypted
    cuts, places = list(truncations(data)), [*range(len(data))]
    bits = list(flips(data, [source.choice(places[:32]), 42, source.choice(places[128:])]))
    swaps = list(_exchanged(estate, key))
    if not NIGHTLY:
        cuts, bits, swaps = source.sample(cuts, 1), source.sample(bits, 2), source.sample(swaps, min(2, len(swaps)))
    yield from [*cuts, *bits, *swaps]
    if by_place(key) and sealed:
        for name, wrong in [*bits, *swaps]:
            yield f"{name}, its checksum made anew", checked_again(key, wrong)


def _exchanged(estate: Estate, key: str) -> Iterator[tuple[str, bytes]]:
    """Other valid objects in its place: of its kind, which only its name or its contents tell apart, and of others."""
    mine = kind_of(key, estate.objects[key])
    kinds: set[str] = set()
    for other in stored(estate):
        kind = kind_of(other, estate.objects[other])
        if other != key and (kind == mine or kind not in kinds):
            kinds.add(kind)
            yield f"{other} in its place", estate.objects[other]


def test_no_use_of_a_repository_believes_a_damaged_object(estate: Estate, tmp_path: Path) -> None:
    source = random.Random(2)
    failures: list[str] = []
    must = needed(estate)
    for key in chosen(estate):
        kind = kind_of(key, estate.objects[key])
        for name, wrong in damages(estate, key, source):
            if wrong == estate.objects[key]:
                continue
            trial = Trial(estate, estate.with_objects({**estate.objects, key: wrong}, tmp_path / "trial"), key)
            try:
                trial.run()
                if not trial.noticed and key in must:
                    raise Wrong("nobody noticed")
            except Wrong as error:
                failures.append(f"{kind} {key}, {name}: {error}")
    assert not failures, "\n".join(failures[:40]) + f"\n{len(failures)} in all"
