"""Opens any stored vector all the way, as a reader of that key would."""

from __future__ import annotations

from collections.abc import Callable

from blake3 import blake3

from manifests.directory import PageDirectory
from manifests.entry import PackTable
from manifests.envelope import Kind, open_by_id, open_by_place
from manifests.errors import CorruptObject
from manifests.manifest import decode_manifest, decode_record
from manifests.pack import read_table
from manifests.packlist import decode_pack_list
from manifests.page import decode_journal, decode_page, decode_segment
from manifests.repository import RepositoryDocument
from manifests.segment_table import decode_segment_table

from . import make_vectors as made

BY_ID = {
    "page.bin": Kind.PAGE, "segment.bin": Kind.SEGMENT, "packlist.bin": Kind.PACK_LIST,
    "directory.bin": Kind.PAGE_DIRECTORY, "segmenttable.bin": Kind.SEGMENT_TABLE,
}  # fmt: skip
NAMES = sorted(p.name for p in made.VECTORS.iterdir() if p.suffix in (".bin", ".json"))

PLAIN: dict[str, Callable[[bytes], object]] = {
    "page": lambda b: decode_page(b, PackTable(), first=8192, count=5, name="page"),
    "segment": lambda b: decode_segment(b, PackTable(), name="segment"),
    "journal": lambda b: decode_journal(b, PackTable(), name="journal"),
    "segmenttable": lambda b: decode_segment_table(b, name="segmenttable"),
    "relocation": lambda b: decode_segment(b, PackTable(), name="relocation"),
    "packlist": lambda b: decode_pack_list(b, name="list"),
    "directory": lambda b: PageDirectory.decode(b, name="directory"),
}


def open_stored(name: str, data: bytes, *, named: bytes | None = None) -> object:
    """Open `data` found where vector `name` was stored; `named`: the id in its key (default: that of the vector)."""
    stem = name.removesuffix(".bin")
    wanted = blake3((made.VECTORS / name).read_bytes()).digest() if named is None else named
    if name == "repository.json":
        return RepositoryDocument.decode(data)
    if name == "pack.bin":
        if blake3(data).digest() != wanted:
            raise CorruptObject("pack is damaged")
        return read_table(data, sealing=made.SEALING, name=name)
    if name in BY_ID:
        return PLAIN[stem](open_by_id(data, BY_ID[name], wanted, sealing=made.SEALING, name=name))
    if name == "journal.bin":
        return PLAIN[stem](open_by_place(data, Kind.JOURNAL, sealing=made.SEALING, key=made.KEYS[stem])[1])
    if name == "relocation.bin":
        return PLAIN[stem](open_by_place(data, Kind.RELOCATION, sealing=made.SEALING, key=made.KEYS[stem])[1])
    if name == "manifest.bin":
        return decode_manifest(data, sealing=made.SEALING, key=made.KEYS[stem])
    return decode_record(data, made.RECORDS[stem][0], sealing=made.SEALING, key=made.KEYS[stem])
