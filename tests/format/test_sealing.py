"""Encryption: what is sealed opens with its keys only, and every bit of it and of what it is bound to counts."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from unittest.mock import patch

import pytest
from blake3 import blake3
from Crypto.Cipher import AES
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa
from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.certificate import SIGNED_SIZE, Role, Writer, machine_scope
from manifests.entry import FLAG_STORED
from manifests.envelope import MAY_SIGN, Kind, open_by_id, open_by_place, seal_by_id, seal_by_place
from manifests.errors import CorruptObject, FailbackError, Forged, KeyRefused
from manifests.pack import ChunkDecoder, PackBuilder, read_table
from manifests.sealing import Generation, Ring, Sealing, fresh_salt

REPOSITORY = bytes(range(16))
ROOT = ECC.generate(curve="ed25519")
ROOT_PRIVATE = ROOT.seed
ROOT_PUBLIC = ROOT.public_key().export_key(format="raw")
RING = Ring(
    root=ROOT_PUBLIC,
    generations={1: Generation(index=b"i" * 32, data=b"d" * 32)},
    ids=b"n" * 32,
    writer=Writer.new(ROOT_PRIVATE, REPOSITORY, Role.ADMIN),
    root_private=ROOT_PRIVATE,
)
SEALING = Sealing(REPOSITORY, RING)
PLAIN_SEALING = Sealing(REPOSITORY)
KEY = "manifests/web/0000000007"
CHUNK = 64 << 10


def as_writer(roles: Role, machine: str = "") -> Sealing:
    return Sealing(REPOSITORY, replace(RING, writer=Writer.new(ROOT_PRIVATE, REPOSITORY, roles, machine)))


def pack_of(chunks: list[bytes], sealing: Sealing = SEALING) -> tuple[bytes, bytes]:
    builder = PackBuilder(bytes(16), CHUNK, sealing)
    for position, chunk in enumerate(chunks):
        builder.add(position, sealing.chunk_hasher()(chunk), chunk, FLAG_STORED)
    return builder.seal()


# -- known answers: each formula of FORMAT.md written down again, with another implementation of the ciphers -----------


def object_key(ring_key: bytes, data: bytes) -> bytes:
    return blake3(ring_key + data[:32], derive_key_context="failback 2026 object key v1").digest()


def opened(key: bytes, slot: int, sealed: bytes, associated: bytes) -> bytes:
    cipher = AES.new(key, AES.MODE_GCM, nonce=slot.to_bytes(12, "little"))
    cipher.update(associated)
    return cipher.decrypt_and_verify(sealed[:-16], sealed[-16:])


def test_a_body_named_by_id_is_what_the_format_says() -> None:
    _named, data = seal_by_id(Kind.PAGE, b"x", sealing=SEALING)
    associated = data[32:64] + struct.pack("<I", 2**32 - 1) + bytes(32) + data[128:144]
    assert opened(object_key(b"i" * 32, data), 2**32 - 1, data[144:], associated) == b"x"
    assert data[42] == 1
    assert data[44:48] == b"\1\0\0\0"
    assert data[64:128] == bytes(64)


def test_a_body_named_by_place_is_what_the_format_says() -> None:
    data = seal_by_place(Kind.MANIFEST, b"x", sealing=SEALING, key=KEY)
    body, certificate, checksum = data[128 : -32 - SIGNED_SIZE], data[-32 - SIGNED_SIZE : -32], data[-32:]
    associated = data[32:64] + struct.pack("<I", 2**32 - 1) + bytes(32) + body[:16] + KEY.encode()
    assert opened(object_key(b"i" * 32, data), 2**32 - 1, body[16:], associated) == b"x"
    assert data[42] == 3
    assert checksum == blake3(data[:-32] + KEY.encode()).digest()
    text = b"failback 2026 object signature v1" + blake3(data[:64] + bytes(64) + data[128:-32]).digest() + KEY.encode()
    eddsa.new(eddsa.import_public_key(certificate[:32]), "rfc8032").verify(text, data[64:128])
    certified = b"failback 2026 writer certificate v1" + REPOSITORY + certificate[:-64]
    eddsa.new(ROOT.public_key(), "rfc8032").verify(certified, certificate[-64:])
    assert certificate[32] == Role.ADMIN


def test_a_chunk_is_what_the_format_says() -> None:
    chunk = os.urandom(CHUNK)
    _named, data = pack_of([b"\1" * CHUNK, chunk])
    table = read_table(data, sealing=SEALING, name="pack")
    assert table.ids[1] == blake3(chunk, key=b"n" * 32).digest()
    sealed = data[table.offsets[1] : table.offsets[1] + table.lengths[1]]
    assert len(sealed) == CHUNK + 16
    associated = data[32:64] + struct.pack("<I", 1) + table.ids[1] + bytes(16)
    assert opened(object_key(b"d" * 32, data), 1, sealed, associated) == chunk


# -- every bit counts --------------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_in_a_signed_object_is_noticed() -> None:
    data = seal_by_place(Kind.MANIFEST, b"a point", sealing=SEALING, key=KEY)
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 1 << (at % 8)
        # Whoever changes an object can make its checksum anew.
        bad[-32:] = blake3(bytes(bad[:-32]) + KEY.encode()).digest()
        if at < len(data) - 32:
            with pytest.raises(FailbackError):
                open_by_place(bytes(bad), Kind.MANIFEST, sealing=SEALING, key=KEY)
    assert open_by_place(data, Kind.MANIFEST, sealing=SEALING, key=KEY) == (Kind.MANIFEST, b"a point")


@given(at=st.integers(128, 2 * CHUNK), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_a_flipped_bit_in_a_chunk_is_noticed_before_its_id(at: int, bit: int) -> None:
    chunks = [b"\1" * CHUNK, b"\2" * CHUNK]
    _named, data = pack_of(chunks)
    table = read_table(data, sealing=SEALING, name="pack")
    bad = bytearray(data)
    bad[at] ^= 1 << bit
    slot = 0 if at < table.offsets[1] else 1
    sealed = memoryview(bytes(bad))[table.offsets[slot] : table.offsets[slot] + table.lengths[slot]]
    with pytest.raises(CorruptObject, match="tag"):
        ChunkDecoder(CHUNK).decode(
            sealed, FLAG_STORED, key=SEALING.data_key(data), slot=slot, chunk_id=table.ids[slot], name="chunk"
        )


def test_chunks_of_one_pack_cannot_change_places() -> None:
    _named, data = pack_of([b"\1" * CHUNK, b"\2" * CHUNK])
    table = read_table(data, sealing=SEALING, name="pack")
    first = memoryview(data)[table.offsets[0] : table.offsets[0] + table.lengths[0]]
    for slot, chunk_id in ((1, table.ids[0]), (0, table.ids[1]), (1, table.ids[1])):
        with pytest.raises(CorruptObject, match="tag"):
            ChunkDecoder(CHUNK).decode(
                first, FLAG_STORED, key=SEALING.data_key(data), slot=slot, chunk_id=chunk_id, name="chunk"
            )


def test_an_object_moved_to_another_place_is_refused_even_with_its_checksum_made_anew() -> None:
    data = seal_by_place(Kind.MANIFEST, b"x", sealing=SEALING, key=KEY)
    other = "manifests/web/0000000008"
    moved = data[:-32] + blake3(data[:-32] + other.encode()).digest()
    with pytest.raises(CorruptObject, match="signature"):
        open_by_place(moved, Kind.MANIFEST, sealing=SEALING, key=other)


# -- who may ----------------------------------------------------------------------------------------------------------


def test_plain_objects_are_refused_in_an_encrypted_repository_and_the_other_way_round() -> None:
    named, data = seal_by_id(Kind.PAGE, b"x", sealing=PLAIN_SEALING)
    with pytest.raises(Forged, match="not encrypted"):
        open_by_id(data, Kind.PAGE, named, sealing=SEALING, name="page")
    plain = seal_by_place(Kind.MANIFEST, b"x", sealing=PLAIN_SEALING, key=KEY)
    plain += bytes(300)
    plain = plain[:-32] + blake3(plain[:-32] + KEY.encode()).digest()
    with pytest.raises(Forged, match="not encrypted"):
        open_by_place(plain, Kind.MANIFEST, sealing=SEALING, key=KEY)
    named, data = seal_by_id(Kind.PAGE, b"x", sealing=SEALING)
    with pytest.raises(CorruptObject, match="is encrypted"):
        open_by_id(data, Kind.PAGE, named, sealing=PLAIN_SEALING, name="page")


def test_a_writer_whom_another_root_certified_is_refused() -> None:
    other = ECC.generate(curve="ed25519").seed
    forged = Sealing(REPOSITORY, replace(RING, writer=Writer.new(other, REPOSITORY, Role.ADMIN)))
    data = seal_by_place(Kind.MANIFEST, b"x", sealing=forged, key=KEY)
    with pytest.raises(Forged, match="does not certify"):
        open_by_place(data, Kind.MANIFEST, sealing=SEALING, key=KEY)


def test_an_exporter_of_one_machine_writes_no_point_of_another() -> None:
    web = as_writer(Role.EXPORT, "web")
    assert open_by_place(
        seal_by_place(Kind.MANIFEST, b"x", sealing=web, key=KEY), Kind.MANIFEST, sealing=SEALING, key=KEY
    )
    with pytest.raises(KeyRefused, match="may not write manifests/db"):
        seal_by_place(Kind.MANIFEST, b"x", sealing=web, key="manifests/db/0000000001")
    with pytest.raises(KeyRefused, match="may not write tombstones/web"):
        seal_by_place(Kind.TOMBSTONE, b"x", sealing=web, key="tombstones/web/0000000001")
    # A thief's program does not ask itself for leave: what it signs is refused by who reads it.
    with patch("manifests.envelope._has_right", lambda *_: True):
        stolen = seal_by_place(Kind.MANIFEST, b"x", sealing=web, key="manifests/db/0000000001")
    with pytest.raises(Forged, match="may not write it"):
        open_by_place(stolen, Kind.MANIFEST, sealing=SEALING, key="manifests/db/0000000001")


def test_a_certificate_cannot_be_widened() -> None:
    web = as_writer(Role.EXPORT, "web")
    assert web.ring is not None
    writer = web.ring.writer
    assert writer is not None
    wide = replace(writer, certificate=replace(writer.certificate, roles=Role.ADMIN, machine=machine_scope("db")))
    data = seal_by_place(Kind.MANIFEST, b"x", sealing=Sealing(REPOSITORY, replace(RING, writer=wide)), key=KEY)
    with pytest.raises(Forged, match="does not certify"):
        open_by_place(data, Kind.MANIFEST, sealing=SEALING, key=KEY)


def test_a_revoked_writer_is_believed_for_what_it_wrote_before() -> None:
    web = as_writer(Role.EXPORT, "web")
    assert web.ring is not None
    assert web.ring.writer is not None
    before = seal_by_place(Kind.MANIFEST, b"before", sealing=web, key=KEY)
    after = seal_by_place(Kind.MANIFEST, b"after", sealing=web, key=KEY)
    wary = replace(SEALING, revoked={web.ring.writer.certificate.public: frozenset({blake3(before).digest()})})
    assert open_by_place(before, Kind.MANIFEST, sealing=wary, key=KEY)[1] == b"before"
    with pytest.raises(Forged, match="revoked"):
        open_by_place(after, Kind.MANIFEST, sealing=wary, key=KEY)


def test_a_janitor_reads_no_data_and_a_reader_writes_nothing() -> None:
    janitor = Sealing(REPOSITORY, replace(RING, ids=None, generations={1: Generation(index=b"i" * 32)}))
    _named, data = pack_of([b"\1" * CHUNK])
    with pytest.raises(KeyRefused, match="janitor"):
        read_table(data, sealing=janitor, name="pack")
    with pytest.raises(KeyRefused, match="janitor"):
        janitor.chunk_hasher()
    with pytest.raises(KeyRefused, match="only reads"):
        seal_by_place(Kind.MANIFEST, b"x", sealing=Sealing(REPOSITORY, replace(RING, writer=None)), key=KEY)


def test_every_kind_that_is_named_by_its_place_says_who_may_write_it() -> None:
    by_id = {Kind.PACK, Kind.PAGE, Kind.SEGMENT, Kind.PACK_LIST, Kind.PAGE_DIRECTORY, Kind.SEGMENT_TABLE}
    assert set(MAY_SIGN) == set(Kind) - by_id


def test_objects_of_a_generation_that_the_key_does_not_hold_are_refused() -> None:
    named, data = seal_by_id(
        Kind.PAGE, b"x", sealing=Sealing(REPOSITORY, replace(RING, generations={2: Generation(b"j" * 32, b"e" * 32)}))
    )
    with pytest.raises(KeyRefused, match="generation 2"):
        open_by_id(data, Kind.PAGE, named, sealing=SEALING, name="page")


# -- no nonce twice ----------------------------------------------------------------------------------------------------


def test_a_machine_resumed_twice_from_one_memory_image_repeats_no_salt_for_other_contents() -> None:
    frozen = {"os.urandom": bytes(32), "os.getpid": 7, "time.time_ns": 1}
    with (
        patch("os.urandom", lambda n: frozen["os.urandom"]),
        patch("os.getpid", lambda: frozen["os.getpid"]),
        patch("time.time_ns", lambda: frozen["time.time_ns"]),
    ):
        assert fresh_salt(b"a" * 32) == fresh_salt(b"a" * 32)
        assert fresh_salt(b"a" * 32) != fresh_salt(b"b" * 32)
        one, other = pack_of([b"\1" * CHUNK])[1], pack_of([b"\2" * CHUNK])[1]
        assert one[:32] != other[:32]
        body, otherwise = (seal_by_place(Kind.MANIFEST, p, sealing=SEALING, key=KEY) for p in (b"x", b"y"))
        assert body[:32] != otherwise[:32]


def test_the_same_contents_sealed_twice_share_neither_salt_nor_bytes() -> None:
    one, other = pack_of([b"\1" * CHUNK])[1], pack_of([b"\1" * CHUNK])[1]
    assert one[:32] != other[:32]
    assert one[128:200] != other[128:200]


def test_a_salt_is_new_in_a_forked_process() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, fresh_salt(bytes(32)))
        os._exit(0)
    mine = fresh_salt(bytes(32))
    os.waitpid(child, 0)
    assert os.read(read, 32) != mine
