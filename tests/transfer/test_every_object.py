"""Whatever is done to any stored object of a repository is noticed and named, or does no harm; no wrong byte comes out.

Two levels: every byte of every small object, looked at by what opens it; and for one object of each kind (in the
nightly profile: for each) a choice of damages, looked at by everything that anybody does with a repository.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from blake3 import blake3

from manifests.entry import PackTable
from manifests.envelope import Kind, place_checksum
from manifests.manifest import decode_manifest, decode_record
from manifests.names import manifest_key, pack_key, page_key, tombstone_key
from manifests.pack import read_table
from pipeline.catalogue import forget, points
from pipeline.errors import CorruptObject, FailbackError, KeyRefused
from pipeline.keys.locks import KeyFile
from pipeline.repository import Repository
from pipeline.store.fault import FaultyStore
from pipeline.store.memory import MemoryStore
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.pack_lists import packs_of
from pipeline.transfer.session import read_journal
from transfer.estate import EXPORTS, MACHINES, Estate, Trial, Wrong, build, catalogue, flips, kind_of, truncations
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, poke

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
    rare = {Kind.SET, Kind.SEGMENT_TABLE, Kind.HEARTBEAT, Kind.RECORD, Kind.RELOCATION, Kind.SCRUB}
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
    right = Repository.open(bench.store, lambda: locks)
    for key in opened_with(estate):
        data = estate.objects[key]
        for name, wrong in [*flips(data, range(len(data))), *truncations(data)]:
            bench.store.put(key, wrong)
            found: Repository | FailbackError
            try:
                found = Repository.open(bench.store, lambda: locks)
            except FailbackError as error:
                found = error
            if isinstance(found, FailbackError):
                assert key in str(found) or isinstance(found, KeyRefused), f"{name}: {found}"
            else:
                # The signature itself may be spelled another way, with a capital letter; it says the same.
                assert (found.sealing, found.document) == (right.sealing, right.document), name
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


def near(key: str) -> list[tuple[str, str]]:
    """The exports that may have to do with it."""
    return [export for export in EXPORTS if f"/{export[0]}/" in key] or list(EXPORTS)


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
            bench = estate.with_objects({**estate.objects, key: wrong}, tmp_path / "trial")
            trial = Trial(estate, bench, key, exports=EXPORTS if NIGHTLY else [source.choice(near(key))])
            try:
                trial.run()
                if not trial.noticed and key in must:
                    raise Wrong("nobody noticed")
            except Wrong as error:
                failures.append(f"{kind} {key}, {name}: {error}")
    assert not failures, "\n".join(failures[:40]) + f"\n{len(failures)} in all"


# -- objects that are whole, at a place that is not theirs -------------------------------------------------------------


@pytest.mark.parametrize("source", ["manifests/vm/0000000001", "manifests/db/0000000003", "manifests/vm/0000000004"])
def test_a_copy_of_a_manifest_is_no_newer_point(estate: Estate, tmp_path: Path, source: str) -> None:
    """Nor is a void record a word about another sequence, where objects are signed."""
    key = manifest_key("vm", 5)
    copies = [estate.objects[source]]
    if estate.bench.repository.sealing.encrypted or source != manifest_key("vm", 4):
        copies.append(checked_again(key, estate.objects[source]))
    for copy in copies:
        bench = estate.with_objects({**estate.objects, key: copy}, tmp_path / "trial")
        with pytest.raises(FailbackError, match=key):
            bench.point(machine="vm")
        with pytest.raises(FailbackError, match=key):
            bench.export(estate.bench.root / "vm", machine="vm")
        bench.restore(3, machine="vm")
        assert bench.restored(machine="vm").read_bytes() == estate.disks["vm@3"]


def test_nobody_without_a_key_can_hide_a_point_with_a_tombstone(estate: Estate, tmp_path: Path) -> None:
    key = tombstone_key("vm", 3)
    forged = [b"", b"forget it", estate.objects[tombstone_key("vm", 2)]]
    if estate.bench.repository.sealing.encrypted:
        forged.append(checked_again(key, estate.objects[tombstone_key("vm", 2)]))
    for data in forged:
        bench = estate.with_objects({**estate.objects, key: data}, tmp_path / "trial")
        for sequence in (None, 3):
            with pytest.raises(FailbackError, match=key):
                bench.point(sequence, "vm")
        with pytest.raises(FailbackError, match=key):
            catalogue(bench)
        assert bench.point(1, "vm").manifest.sequence == 1


def test_no_object_is_written_twice_so_that_none_has_an_older_version_to_be_replayed(tmp_path: Path) -> None:
    store = FaultyStore(MemoryStore())
    bench = Workbench(tmp_path, store)
    source = make_disk(tmp_path / "source", MIB, {0: noise(5 * CHUNK, 1)})
    for sequence in (1, 2, 3):
        bench.export(source)
        poke(source, sequence * CHUNK, noise(CHUNK, sequence))
    forget(bench.repository, bench.point(2), reason="test")
    put = Counter(key for verb, key in store.history if verb == "put" and not key.startswith("probe"))
    assert set(put) == {info.key for info in store.list("")}
    assert {key for key, count in put.items() if count > 1} <= {k for k in put if k.endswith("/heartbeat")}


def test_a_generation_of_keys_that_does_not_exist_is_named_with_its_object(estate: Estate, tmp_path: Path) -> None:
    """Where a pack is read in part its name proves nothing; the header that says which key opens it may be damaged."""
    if not estate.bench.repository.sealing.encrypted:
        pytest.skip("nothing has a generation")
    for key in sorted(needed(estate).intersection(chosen(estate))):
        wrong = bytearray(estate.objects[key])
        wrong[45] ^= 1
        bench = estate.with_objects({**estate.objects, key: bytes(wrong)}, tmp_path / "trial")
        Trial(estate, bench, key).run()
