"""Hostile lengths cost no more memory than the limits say."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable

import pytest
import zstandard
from blake3 import blake3

from manifests.envelope import MAX_BODY, Kind, decode_body, encode_body, new_header, open_by_place, place_checksum
from manifests.errors import CorruptObject, FormatError
from manifests.manifest import decode_record
from manifests.pack import PACK_SLOTS, ChunkDecoder, PackBuilder, read_table
from manifests.packlist import MAX_PACKS, PackUse, encode_pack_list

from . import make_vectors as made
from .opening import PLAIN

MIB = 1 << 20
RAW_BLOCK = b"\x01\x00\x00"


def peak_of(action: Callable[[], object]) -> int:
    """Bytes that `action` held at most, besides raising a FormatError."""
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def boast(length: int) -> bytes:
    """A zstd frame that claims to hold `length` bytes and holds none."""
    return bytes.fromhex("28b52ffde0") + struct.pack("<Q", length) + RAW_BLOCK


@pytest.mark.parametrize("claim", [1, MAX_BODY, MAX_BODY + 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1, (1 << 64) - 3])
@pytest.mark.parametrize("length", [0, 1, 4096, MAX_BODY, MAX_BODY + 1, 1 << 40, (1 << 64) - 1])
def test_a_body_that_lies_about_its_length_costs_no_more_than_the_limit(claim: int, length: int) -> None:
    body = struct.pack("<B7xQ", 1, length) + boast(claim)
    assert peak_of(lambda: decode_body(body, name="body")) < (MAX_BODY + MIB if claim == length == MAX_BODY else MIB)


@pytest.mark.parametrize("frame_size", [MAX_BODY, 4 * MAX_BODY])
def test_a_real_bomb_is_refused_before_it_goes_off(frame_size: int) -> None:
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(frame_size))
    nameless = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(bytes(frame_size))
    for frame in (bomb, nameless):
        body = struct.pack("<B7xQ", 1, 100) + frame
        assert peak_of(lambda body=body: decode_body(body, name="body")) < MIB
        decoder = ChunkDecoder(made.CHUNK)
        assert peak_of(lambda frame=frame, d=decoder: d.decode(memoryview(frame), 0, name="chunk")) < MIB


def test_a_frame_with_a_neighbour_a_dictionary_or_nothing_inside_is_refused() -> None:
    plain = bytes(1000)
    frame = zstandard.ZstdCompressor(level=1).compress(plain)
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"abcd"
    empty = zstandard.ZstdCompressor(level=1).compress(b"")
    samples = [b"%d the sample of a dictionary %d" % (i, i * i) for i in range(3000)]
    trained = zstandard.ZstdCompressor(dict_data=zstandard.train_dictionary(2048, samples)).compress(samples[7] * 30)
    for length, payload in [
        (1000, frame + frame), (2000, frame + frame), (1000, frame + skippable), (1000, skippable + frame),
        (0, empty), (0, empty + b"x"), (0, skippable), (0, b""), (len(samples[7]) * 30, trained),
    ]:  # fmt: skip
        with pytest.raises(CorruptObject):
            decode_body(struct.pack("<B7xQ", 1, length) + payload, name="body")


@pytest.mark.parametrize("name", ["page", "segment", "journal"])
@pytest.mark.parametrize("n", [0, 4097, 16385, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("m", [0, 1, (1 << 32) - 1])
@pytest.mark.parametrize("first", [0, 8192, (1 << 63) - 1, (1 << 64) - 1])
def test_counts_that_overflow_are_refused(name: str, n: int, m: int, first: int) -> None:
    plain = struct.pack("<IIIIQ", n, m, 0, 0, first) + bytes(3000)
    assert peak_of(lambda: PLAIN[name](plain)) < MIB


@pytest.mark.parametrize("name", ["packlist", "directory", "segmenttable"])
@pytest.mark.parametrize("head", [(1, 1 << 24), (1 << 32) - 1, (1 << 64) - 1, 1 << 63, 4096 << 32])
def test_lists_longer_than_their_bytes_are_refused(name: str, head: int | tuple[int, int]) -> None:
    number = head if isinstance(head, int) else head[0]
    plain = struct.pack("<QQ", number, 0 if isinstance(head, int) else head[1]) + bytes(64)
    assert peak_of(lambda: PLAIN[name](plain)) < MIB


@pytest.mark.parametrize("at", [0, 127, 128, 129, (1 << 32) - 1])
@pytest.mark.parametrize("length", [0, 16, (1 << 32) - 1])
@pytest.mark.parametrize("slots", [0, 1, PACK_SLOTS, PACK_SLOTS + 1, (1 << 32) - 1])
def test_a_footer_that_points_elsewhere_is_refused(at: int, length: int, slots: int) -> None:
    footer = struct.pack("<IIIIQ8s", at, length, slots, made.CHUNK, 0, b"kcabliaf")
    data = new_header(Kind.PACK, made.SEALING, b"") + bytes(100) + footer
    assert peak_of(lambda: read_table(data, sealing=made.SEALING, name="pack")) < MIB


def test_chunks_of_a_pack_overlap_nowhere() -> None:
    data = bytearray((made.VECTORS / "pack.bin").read_bytes())
    at, length = struct.unpack_from("<II", data, len(data) - 32)
    table = bytearray(decode_body(bytes(data[at : at + length]), name="table"))
    for column in (24 + 80 + 4, 24 + 88):  # offset of the second chunk, length of the first
        wrong = bytearray(table)
        wrong[column] ^= 1
        body = encode_body(bytes(wrong))
        footer = struct.pack("<IIIIQ8s", at, len(body), 2, made.CHUNK, 0, b"kcabliaf")
        with pytest.raises(CorruptObject):
            read_table(bytes(data[:at]) + body + footer, sealing=made.SEALING, name="pack")


def test_json_deeper_than_any_stack_is_refused() -> None:
    plain = b"[" * 1_000_000
    data = new_header(Kind.SESSION, made.SEALING, b"") + encode_body(plain)
    data += place_checksum(data, "session")
    with pytest.raises(CorruptObject, match="JSON"):
        decode_record(data, Kind.SESSION, sealing=made.SEALING, key="session")


@pytest.mark.parametrize("size", [0, 1, 127, 128, 144, 175])
def test_an_object_shorter_than_its_frame_is_refused(size: int) -> None:
    with pytest.raises(CorruptObject):
        open_by_place(bytes(size), Kind.SESSION, sealing=made.SEALING, key="session")


def test_a_writer_cannot_exceed_what_readers_take() -> None:
    with pytest.raises(ValueError, match="too long"):
        encode_body(bytes(MAX_BODY + 1))
    use = PackUse(1, 1)
    with pytest.raises(ValueError, match="too many"):
        encode_pack_list(dict.fromkeys(range(MAX_PACKS + 1), use))  # type: ignore[arg-type]
    builder = PackBuilder(made.LINEAGE, made.CHUNK, made.SEALING)
    for i in range(PACK_SLOTS):
        builder.add(i, made.made_id(i), b"x", 0)
    with pytest.raises(ValueError, match="full"):
        builder.add(PACK_SLOTS, blake3(b"").digest(), b"x", 0)
