"""Bytes written once stay readable, FORMAT.md is enough to read them, and plain forms do not drift."""

from __future__ import annotations

import json

import pytest
from blake3 import blake3

from manifests.directory import PageDirectory
from manifests.entry import PackTable
from manifests.envelope import Kind, new_header, open_by_id, open_by_place
from manifests.manifest import decode_manifest, decode_record
from manifests.pack import ChunkDecoder, read_table
from manifests.packlist import decode_pack_list
from manifests.page import decode_journal, decode_page, decode_segment
from manifests.repository import RepositoryDocument
from manifests.segment_table import decode_segment_table

from . import make_vectors as made
from . import reader

BY_ID = {
    "page": Kind.PAGE,
    "segment": Kind.SEGMENT,
    "packlist": Kind.PACK_LIST,
    "directory": Kind.PAGE_DIRECTORY,
    "segmenttable": Kind.SEGMENT_TABLE,
}


def vector(name: str) -> bytes:
    return (made.VECTORS / name).read_bytes()


@pytest.mark.parametrize("name", sorted(made.plains()))
def test_plain_forms_are_encoded_to_the_very_bytes_of_the_vector(name: str) -> None:
    assert made.plains()[name] == vector(f"{name}.plain")


def test_the_repository_document_is_encoded_to_the_very_bytes_of_the_vector() -> None:
    assert made.DOCUMENT.encode() == vector("repository.json")


@pytest.mark.parametrize("name", sorted(p.name for p in made.VECTORS.glob("*.bin")))
def test_every_vector_begins_with_the_header_written_today(name: str) -> None:
    data = vector(name)
    with made.fixed_salt():
        assert new_header(Kind(data[40]), made.SEALING, b"") == data[:128]


def test_every_type_of_object_has_a_vector() -> None:
    assert {vector(p.name)[40] for p in made.VECTORS.glob("*.bin")} == set(Kind) - {Kind.SET}


@pytest.mark.parametrize("name", sorted(BY_ID))
def test_objects_named_by_id_open_to_the_plain_vector(name: str) -> None:
    data = vector(f"{name}.bin")
    found = open_by_id(data, BY_ID[name], blake3(data).digest(), sealing=made.SEALING, name=name)
    assert found == vector(f"{name}.plain")
    assert reader.by_id(data) == (blake3(data).digest(), BY_ID[name], found)


def test_a_journal_opens_to_the_plain_vector() -> None:
    data = vector("journal.bin")
    key = made.KEYS["journal"]
    found = open_by_place(data, Kind.JOURNAL, sealing=made.SEALING, key=key)
    assert found == (Kind.JOURNAL, vector("journal.plain"))
    assert reader.by_place(data, key) == (10, vector("journal.plain"))


def test_a_relocation_means_the_same_to_both_readers() -> None:
    data, key = vector("relocation.bin"), made.KEYS["relocation"]
    found = open_by_place(data, Kind.RELOCATION, sealing=made.SEALING, key=key)
    assert found == (Kind.RELOCATION, vector("relocation.plain"))
    assert reader.by_place(data, key) == (16, vector("relocation.plain"))
    told = reader.entries(vector("relocation.plain"), positions=True)["rows"]
    rows, packs = made.entries()
    assert [(e["position"], e["pack"], e["offset"]) for e in told] == [
        (128, packs.ids[0], 128),
        (70_000, packs.ids[0], 5128),
    ]
    assert [e["id"] for e in told] == [row["id"].tobytes() for row in rows[:2]]


@pytest.mark.parametrize("name", ["page", "segment", "journal"])
def test_index_entries_mean_the_same_to_both_readers(name: str) -> None:
    plain = vector(f"{name}.plain")
    packs = PackTable([b"p" * 32])  # Numbers of packs differ from file to file.
    if name == "page":
        rows, where, disk = decode_page(plain, packs, first=8192, count=5, name=name), range(8192, 8197), 0
    elif name == "segment":
        (where, rows), disk = decode_segment(plain, packs, name=name), 0
    else:
        journal = decode_journal(plain, packs, name=name)
        disk, where, rows = journal.disk, journal.positions, journal.rows
    told = [
        {
            "position": int(position),
            "id": row["id"].tobytes(),
            "pack": packs.ids[int(row["pack"])] if row["id"].any() else None,
            **{column: int(row[column]) for column in ("offset", "length", "slot", "flags")},
        }
        for position, row in zip(where, rows, strict=True)
    ]
    second = reader.entries(plain, positions=name != "page", journal=name == "journal")
    assert second["rows"] == told
    assert second["disk"] == disk == (3 if name == "journal" else 0)
    rows_made, packs_made = made.entries()
    assert [e["pack"] for e in told] == [packs_made.ids[int(r["pack"])] if r["id"].any() else None for r in rows_made]
    for column in ("offset", "length", "slot", "flags"):
        assert [e[column] for e in told] == rows_made[column].tolist()


def test_the_lengths_of_packs_in_a_journal_mean_the_same_to_both_readers() -> None:
    packs = PackTable([b"p" * 32])
    found = decode_journal(vector("journal.plain"), packs, name="journal").stored
    told = reader.entries(vector("journal.plain"), positions=True, journal=True)["stored"]
    assert {packs.ids[o]: length for o, length in found.items()} == told
    assert told == {made.made_id(100): 80_000, made.made_id(101): 0x00B00000}


def test_a_segment_table_means_the_same_to_both_readers() -> None:
    plain = vector("segmenttable.plain")
    assert decode_segment_table(plain, name="table") == made.SEGMENTS
    told = [(s.id, s.first, s.last, s.count) for s in made.SEGMENTS]
    assert [(i.hex(), *rest) for i, *rest in reader.segment_table(plain)] == told


def test_a_pack_list_means_the_same_to_both_readers() -> None:
    plain = vector("packlist.plain")
    found = decode_pack_list(plain, name="list")
    assert found == made.uses()
    assert reader.pack_list(plain) == [(i, u.stored, u.live) for i, u in sorted(found.items())]


def test_a_page_directory_means_the_same_to_both_readers() -> None:
    plain = vector("directory.plain")
    found = PageDirectory.decode(plain, name="directory")
    assert reader.page_directory(plain) == (found.positions, [found[i] for i in range(3)])
    assert found.stored() == [0, 2]
    assert [found.size_of(i) for i in range(3)] == [4096, 4096, 5]


def test_a_pack_means_the_same_to_both_readers() -> None:
    data = vector("pack.bin")
    second = reader.pack(data)
    assert second["type"] == Kind.PACK
    assert second["chunks"] == [made.SQUEEZED, made.RANDOM]
    table = read_table(data, sealing=made.SEALING, name="pack")
    assert (table.lineage, table.chunk_size) == (made.LINEAGE, made.CHUNK) == (second["lineage"], second["chunk_size"])
    assert table.positions.tolist() == list(second["positions"]) == [9, 1 << 40]
    decoder = ChunkDecoder(made.CHUNK)
    for i, plain in enumerate(second["chunks"]):
        sealed = memoryview(data)[int(table.offsets[i]) : int(table.offsets[i] + table.lengths[i])]
        assert decoder.decode(sealed, int(table.flags[i]), name="chunk") == plain
        assert table.ids[i] == blake3(plain).digest()


def test_a_manifest_means_the_same_to_both_readers() -> None:
    data = vector("manifest.bin")
    assert decode_manifest(data, sealing=made.SEALING, key=made.KEYS["manifest"]) == made.manifest()
    kind, document = reader.record(data, made.KEYS["manifest"])
    assert kind == Kind.MANIFEST
    assert document == json.loads(json.dumps(made.manifest().model_dump(mode="json")))


@pytest.mark.parametrize("name", sorted(made.RECORDS))
def test_records_mean_the_same_to_both_readers(name: str) -> None:
    kind, document = made.RECORDS[name]
    data = vector(f"{name}.bin")
    assert decode_record(data, kind, sealing=made.SEALING, key=made.KEYS[name]) == document
    assert reader.record(data, made.KEYS[name]) == (kind, document)


def test_a_void_record_is_no_manifest() -> None:
    assert decode_manifest(vector("void.bin"), sealing=made.SEALING, key=made.KEYS["void"]) is None


def test_the_repository_document_means_the_same_to_both_readers() -> None:
    found = RepositoryDocument.decode(vector("repository.json"))
    assert found == made.DOCUMENT
    assert reader.repository(vector("repository.json")) == {
        "format": 1, "id": found.id, "created": found.created, "chunk_size": found.chunk_size,
        "encryption": None, "abilities": found.abilities,
    }  # fmt: skip
