"""No damaged byte of a stored object is ever accepted, and none raises anything but a FormatError."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.entry import PackTable
from manifests.envelope import place_checksum
from manifests.errors import CorruptObject, FormatError, NewerFormat, WrongRepository
from manifests.manifest import Manifest
from manifests.pack import FOOTER_SIZE, ChunkDecoder, decode_table, read_table, table_start
from manifests.packlist import decode_pack_list, encode_pack_list
from manifests.page import decode_journal, decode_page, decode_segment, encode_journal, encode_page, encode_segment
from manifests.repository import RepositoryDocument
from manifests.segment_table import decode_segment_table, encode_segment_table

from . import make_vectors as made
from .opening import NAMES, PLAIN, open_stored

many = settings(deadline=None, max_examples=300)


def vector(name: str) -> bytes:
    return (made.VECTORS / name).read_bytes()


def places(size: int) -> Iterable[int]:
    """All of a small object; both ends and a sample of a large one."""
    return range(size) if size < 2048 else sorted({*range(200), *range(200, size, 499), *range(size - 300, size)})


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_byte_is_detected(name: str) -> None:
    data = vector(name)
    open_stored(name, data)
    for at in places(len(data)):
        for change in (0x01, 0x20, 0x29, 0x80, 0xFF):
            wrong = bytearray(data)
            wrong[at] ^= change
            with pytest.raises(FormatError):
                open_stored(name, bytes(wrong))


@pytest.mark.parametrize("name", NAMES)
def test_a_truncation_is_detected(name: str) -> None:
    data = vector(name)
    for size in places(len(data)):
        with pytest.raises(FormatError):
            open_stored(name, data[:size])


@pytest.mark.parametrize("name", NAMES)
@given(tail=st.binary(min_size=1, max_size=200))
@settings(deadline=None, max_examples=30)
def test_appended_bytes_are_detected(name: str, tail: bytes) -> None:
    data = vector(name)
    for extra in (tail, data, data[-32:], b"\n", b" ", b"\0"):
        with pytest.raises(FormatError):
            open_stored(name, data + extra)


def checked_again(name: str, data: bytes) -> bytes:
    """`data` with the checksum that its contents call for, as one who wants to deceive would store it."""
    by_id = name in ("pack.bin", "page.bin", "segment.bin", "packlist.bin", "directory.bin", "segmenttable.bin")
    return data if by_id else data[:-32] + place_checksum(data[:-32], made.KEYS[name.removesuffix(".bin")])


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith(".bin")])
def test_damage_before_the_checksum_was_taken_raises_nothing_but_format_errors(name: str) -> None:
    data = vector(name)
    for at in places(len(data)):
        for change in (0x01, 0x80, 0xFF):
            wrong = bytearray(data)
            wrong[at] ^= change
            stored = checked_again(name, bytes(wrong))
            with contextlib.suppress(FormatError):
                open_stored(name, stored, named=blake3(stored).digest())


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith(".bin")])
def test_a_truncation_before_the_checksum_was_taken_is_detected(name: str) -> None:
    data = vector(name)
    for size in places(len(data)):
        stored = checked_again(name, data[:size])
        with pytest.raises(FormatError):
            open_stored(name, stored, named=blake3(stored).digest())


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith(".bin")])
@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        (32, 0, CorruptObject),  # magic
        (40, 13, CorruptObject),  # a set, where none belongs
        (40, 16, NewerFormat),
        (40, 0, NewerFormat),
        (41, 2, NewerFormat),
        (42, 1, CorruptObject),  # encrypted, in a repository that is not
        (42, 2, CorruptObject),  # signed
        (42, 4, NewerFormat),
        (43, 1, NewerFormat),
        (44, 1, CorruptObject),
        (48, 255, WrongRepository),
    ],
)
def test_what_a_header_does_not_know_is_refused_and_told_apart(
    name: str, at: int, value: int, error: type[FormatError]
) -> None:
    wrong = bytearray(vector(name))
    wrong[at] = value
    stored = checked_again(name, bytes(wrong))
    with pytest.raises(error):
        open_stored(name, stored, named=blake3(stored).digest())


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith(".bin")])
def test_reserved_bytes_of_the_header_are_ignored(name: str) -> None:
    data = vector(name)
    wrong = data[:64] + b"\x5a" * 64 + data[128:]
    stored = checked_again(name, wrong)
    open_stored(name, stored, named=blake3(stored).digest())


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith(".bin")])
def test_an_object_of_another_type_is_refused_in_its_place(name: str) -> None:
    for other in NAMES:
        if other not in (name, "repository.json") and vector(other)[40] != vector(name)[40]:
            if {name, other} == {"manifest.bin", "void.bin"}:
                continue  # Both belong below manifests/.
            with pytest.raises(FormatError):
                open_stored(name, vector(other), named=blake3(vector(other)).digest())


@given(data=st.data())
@many
def test_a_plain_form_that_decodes_is_the_only_one_of_its_value(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(PLAIN)))
    plain = bytearray(vector(f"{name}.plain"))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(plain) - 1))
        plain[at] = data.draw(st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF]))
    again = None
    with contextlib.suppress(FormatError):
        packs = PackTable()
        if name == "page":
            again = encode_page(8192, decode_page(bytes(plain), packs, first=8192, count=5, name=name), packs)
        elif name == "segment":
            again = encode_segment(*decode_segment(bytes(plain), packs, name=name), packs)
        elif name == "journal":
            found = decode_journal(bytes(plain), packs, name=name)
            again = encode_journal(found.disk, found.positions, found.rows, packs, found.stored)
        elif name == "segmenttable":
            again = encode_segment_table(decode_segment_table(bytes(plain), name=name))
        elif name == "packlist":
            again = encode_pack_list(decode_pack_list(bytes(plain), name=name))
        else:
            again = PLAIN[name](bytes(plain)).encode()  # type: ignore[attr-defined]
    assert again is None or again == plain


@pytest.mark.parametrize("name", sorted(PLAIN))
@given(plain=st.binary(max_size=300))
@settings(deadline=None, max_examples=100)
def test_noise_is_no_plain_form(name: str, plain: bytes) -> None:
    with pytest.raises(FormatError):
        PLAIN[name](plain + b"\xff")


@pytest.mark.parametrize("name", ["page", "segment", "journal"])
def test_unknown_flags_of_an_entry_are_refused_as_newer(name: str) -> None:
    plain = bytearray(vector(f"{name}.plain"))
    plain[-10 - 8 * (name == "journal")] |= 4
    with pytest.raises(NewerFormat):
        PLAIN[name](bytes(plain))


@given(at=st.integers(0), change=st.integers(1, 255), slot=st.sampled_from([0, 1]))
@many
def test_a_damaged_ranged_read_is_detected_by_the_chunk_id(at: int, change: int, slot: int) -> None:
    pack = vector("pack.bin")
    table = read_table(pack, sealing=made.SEALING, name="pack")
    start, length = int(table.offsets[slot]), int(table.lengths[slot])
    sealed = bytearray(pack[start : start + length])
    sealed[at % length] ^= change
    try:
        plain = ChunkDecoder(made.CHUNK).decode(memoryview(sealed), int(table.flags[slot]), name="chunk")
    except CorruptObject:
        return
    assert blake3(plain).digest() != table.ids[slot] or bytes(plain) == (made.SQUEEZED, made.RANDOM)[slot]


@pytest.mark.parametrize("slot", [0, 1])
def test_a_ranged_read_of_the_wrong_length_is_detected(slot: int) -> None:
    pack = vector("pack.bin")
    table = read_table(pack, sealing=made.SEALING, name="pack")
    start, length = int(table.offsets[slot]), int(table.lengths[slot])
    for wrong in (0, 1, length - 1, length + 1, length + 5):
        with pytest.raises(CorruptObject):
            ChunkDecoder(made.CHUNK).decode(
                memoryview(pack)[start : start + wrong], int(table.flags[slot]), name="chunk"
            )


def test_a_table_is_read_from_the_end_of_a_pack() -> None:
    pack = vector("pack.bin")
    whole = read_table(pack, sealing=made.SEALING, name="pack")
    start = table_start(pack[-FOOTER_SIZE:], size=len(pack), name="pack")
    found = decode_table(pack[start:], size=len(pack), name="pack")
    assert (found.lineage, found.ids) == (whole.lineage, whole.ids)
    assert found.positions.tolist() == whole.positions.tolist()
    for end, size in ((pack[start + 1 :], len(pack)), (pack[start - 1 :], len(pack)), (pack[start:], len(pack) - 1)):
        with pytest.raises(CorruptObject):
            decode_table(end, size=size, name="pack")
    for at in range(start, len(pack)):
        wrong = bytearray(pack[start:])
        wrong[at - start] ^= 0x11
        with contextlib.suppress(FormatError):  # ids and positions of a table alone are not proved
            decode_table(bytes(wrong), size=len(pack), name="pack")
    for size in range(FOOTER_SIZE):
        with pytest.raises(CorruptObject):
            table_start(pack[len(pack) - size :], size=len(pack), name="pack")


@given(at=st.integers(0, 10**6), insert=st.sampled_from(["0", "-", "9", '"', "null", "[", "{", "\\ud800", "NaN"]))
@many
def test_a_manifest_of_wrong_json_raises_nothing_but_format_errors(at: int, insert: str) -> None:
    text = made.manifest().model_dump_json()
    at %= len(text)
    with contextlib.suppress(FormatError):
        Manifest.parse((text[:at] + insert + text[at + 1 :]).encode(), name="manifest")


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('"format":1', '"format":2', NewerFormat),
        ('"format":1', '"format":1,"surprise":0', NewerFormat),
        ('"chunk_size":65536', '"chunk_size":0', CorruptObject),
        ('"chunk_size":65536', '"chunk_size":65537', CorruptObject),
        ('"digest":"', '"digest":"A', CorruptObject),
        ('"first":1', '"first":4', CorruptObject),
        ('"last":2', '"last":4', CorruptObject),
        ('"count":2', '"count":3', CorruptObject),
        ('"sequence":7', '"sequence":10000000000', CorruptObject),
        ('"size":', '"size":-', CorruptObject),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(old: str, new: str, error: type[FormatError]) -> None:
    text = made.manifest().model_dump_json()
    assert text.count(old) == 1
    with pytest.raises(error):
        Manifest.parse(text.replace(old, new).encode(), name="manifest")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b'"x"', b"{}", b"[" * 100_000, b'{"format": 1}', b"\xff\xfe{", b'{"format": [1]}',
        b'{"format": 1, "encryption": null, "checksum": 5}', b'{"format": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_other_json_is_no_repository_document(data: bytes) -> None:
    with pytest.raises(FormatError):
        RepositoryDocument.decode(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", "00"), ("id", "Z" * 32), ("id", 5), ("chunk_size", 1), ("chunk_size", "65536"), ("abilities", []),
     ("created", None), ("chunk_size", True)],
)  # fmt: skip
def test_a_repository_document_with_wrong_values_is_refused(field: str, value: object) -> None:
    values = {"id": "00" * 16, "created": "", "chunk_size": 65536, "abilities": {}, field: value}
    with pytest.raises(FormatError):
        RepositoryDocument.decode(RepositoryDocument(**values).encode())  # type: ignore[arg-type]


def test_an_entry_that_points_outside_a_pack_is_refused() -> None:
    for column, value in [("offset", 127), ("offset", (16 << 20) - 4), ("length", 0), ("length", 0xFFFFFFFF)]:
        rows, packs = made.entries()
        rows[column][0] = value
        with pytest.raises(CorruptObject):
            decode_segment(encode_segment(made.positions(), rows, packs), PackTable(), name="segment")


@pytest.mark.parametrize("length", [0, 127, 1 << 31])
def test_a_journal_with_a_length_that_no_pack_has_is_refused(length: int) -> None:
    plain = vector("journal.plain")
    with pytest.raises(CorruptObject):
        decode_journal(plain[:-4] + struct.pack("<I", length), PackTable(), name="journal")
    rows, packs = made.entries()
    with pytest.raises(ValueError, match="no pack has"):
        encode_journal(0, made.positions(), rows, packs, {0: 80_000, 1: length})


def test_a_writer_cannot_encode_what_no_reader_takes() -> None:
    rows, packs = made.entries()
    with pytest.raises(ValueError, match="not a segment"):
        encode_segment(made.positions()[::-1].copy(), rows, packs)
    with pytest.raises(ValueError, match="not a segment"):
        encode_segment(made.positions()[:4], rows, packs)
    with pytest.raises(ValueError, match="not a segment"):
        encode_segment(np.arange(16385, dtype="<u8"), np.zeros(16385, rows.dtype), packs)
    with pytest.raises(ValueError, match="not a page"):
        encode_page(1, rows, packs)
    with pytest.raises(ValueError, match="not a page"):
        encode_page(0, np.zeros(4097, rows.dtype), packs)
    with pytest.raises(ValueError, match="no id yet"):
        encode_page(0, rows, PackTable([packs.ids[0], b""]))
