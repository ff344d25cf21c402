"""Whatever stands in a repository: reading it ends in a value or in an error of the formats, soon, in little memory."""

from __future__ import annotations

import base64
import contextlib
import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from format import make_sealed as sealed
from format import make_vectors as made
from format.opening import NAMES, PLAIN, open_stored
from format.test_format_damage import checked_again, vector
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.mutate import bounded, changed, fuzz, mutated, nested
from manifests.certificate import SIGNED_SIZE, Certificate
from manifests.entry import PackTable
from manifests.envelope import Kind, open_by_id, open_by_place, place_checksum, seal_by_id, seal_by_place
from manifests.errors import CorruptObject, FailbackError, FormatError
from manifests.manifest import decode_manifest, decode_record
from manifests.names import decode_machine, parse_point
from manifests.pack import read_table
from manifests.page import decode_page
from manifests.repository import RepositoryDocument, _canonical
from manifests.slot import Payload, Slot, _head, _payload_out, decode_slot, encode_document, open_slot, seal_slot

STORED = sorted(n for n in NAMES if n.endswith(".bin"))
BODY = 3 * (64 << 20)
"""A body may say that it holds 64 MiB (FORMAT.md, section 2); decompressed once, and copied while it is parsed."""


@pytest.mark.parametrize("name", sorted(PLAIN))
@given(data=st.data())
@fuzz(150)
def test_plain_forms(name: str, data: st.DataObject) -> None:
    plain = data.draw(mutated([vector(f"{name}.plain")]))
    with bounded(len(plain)), contextlib.suppress(FormatError):
        PLAIN[name](plain)


@pytest.mark.parametrize("name", STORED)
@given(data=st.data())
@fuzz(60)
def test_stored_objects_whose_name_or_checksum_was_made_to_fit(name: str, data: st.DataObject) -> None:
    stored = checked_again(name, data.draw(mutated([vector(name)])))
    with bounded(len(stored), limit=BODY), contextlib.suppress(FormatError):
        open_stored(name, stored, named=blake3(stored).digest())


GOLDEN = {
    path.relative_to(sealed.SEALED).as_posix(): path.read_bytes()
    for path in sorted(sealed.SEALED.rglob("*"))
    if path.is_file() and path.name != "repository.json"
}


@given(data=st.data(), key=st.sampled_from(sorted(GOLDEN)))
@fuzz(200)
def test_sealed_objects_are_refused_whatever_is_changed(data: st.DataObject, key: str) -> None:
    stored = data.draw(mutated([GOLDEN[key]]))
    if key.startswith("manifests/"):
        stored = stored[:-32] + place_checksum(stored[:-32], key)
    if stored[:64] + stored[128:] == GOLDEN[key][:64] + GOLDEN[key][128:] and not key.startswith("manifests/"):
        return  # where the signature of others is, objects named by id have bytes that only their name covers
    if stored == GOLDEN[key]:
        return
    with bounded(len(stored)):
        if key.startswith("manifests/"):
            with pytest.raises(FailbackError):
                decode_manifest(stored, sealing=sealed.SEALING, key=key)
        elif key.startswith("pages/"):
            kind = Kind(GOLDEN[key][40])
            with pytest.raises(FailbackError, match=key):
                open_by_id(stored, kind, blake3(stored).digest(), sealing=sealed.SEALING, name=key)
        else:
            # A pack's table is proved by itself only; its chunks are by the index.
            with contextlib.suppress(FailbackError):
                read_table(stored, sealing=sealed.SEALING, name=key)


@given(data=st.data())
@fuzz(100)
def test_certificates(data: st.DataObject) -> None:
    ring = sealed.SEALING.ring
    assert ring is not None
    assert ring.writer is not None
    given_bytes = data.draw(mutated([ring.writer.certificate.encode()]))[:SIGNED_SIZE].ljust(SIGNED_SIZE, b"\0")
    with bounded(len(given_bytes)), contextlib.suppress(CorruptObject):
        found = Certificate.decode(given_bytes, name="x")
        if found != ring.writer.certificate:
            with pytest.raises(FailbackError):
                found.check(ring.root, sealed.SEALING.repository, name="x")


@pytest.mark.parametrize("sealing", [made.SEALING, sealed.SEALING], ids=["plain", "sealed"])
@given(plain=st.binary(max_size=200) | mutated([vector("page.plain"), vector("segment.plain")]))
@fuzz(60)
def test_bodies_come_back_as_they_went_in_and_may_hold_anything(sealing: Any, plain: bytes) -> None:
    named, stored = seal_by_id(Kind.PAGE, plain, sealing=sealing)
    assert open_by_id(stored, Kind.PAGE, named, sealing=sealing, name="page") == plain
    stored = seal_by_place(Kind.JOURNAL, plain, sealing=sealing, key=made.KEYS["journal"])
    found = open_by_place(stored, Kind.JOURNAL, sealing=sealing, key=made.KEYS["journal"])
    assert found == (Kind.JOURNAL, plain)
    with bounded(len(stored)), contextlib.suppress(FormatError):
        decode_page(plain, PackTable(), first=8192, count=5, name="page")


MANIFEST = made.manifest().model_dump(mode="json")


def as_json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=True).encode("utf-8", "surrogatepass")


@given(document=changed(MANIFEST))
@example(document={**MANIFEST, "machine": {**MANIFEST["machine"], "raw": {"deep": nested(180)}}})
@fuzz(300)
def test_manifests(document: Any) -> None:
    key = made.KEYS["manifest"]
    stored = seal_by_place(Kind.MANIFEST, as_json(document), sealing=made.SEALING, key=key)
    with bounded(len(stored), factor=200), contextlib.suppress(FormatError):
        decode_manifest(stored, sealing=made.SEALING, key=key)


@given(text=mutated([as_json(MANIFEST), b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000]), record=st.booleans())
@example(text=b"[" * 100_000, record=True)
@example(text=b"1" * 5000, record=True)
@fuzz(100)
def test_json_that_is_none(text: bytes, record: bool) -> None:
    name, kind = ("tombstone", Kind.TOMBSTONE) if record else ("manifest", Kind.MANIFEST)
    stored = seal_by_place(kind, text, sealing=made.SEALING, key=made.KEYS[name])
    with bounded(len(text), factor=400), contextlib.suppress(FormatError):
        if record:
            decode_record(stored, kind, sealing=made.SEALING, key=made.KEYS[name])
        else:
            decode_manifest(stored, sealing=made.SEALING, key=made.KEYS[name])


DOCUMENT = {k: v for k, v in json.loads(made.DOCUMENT.encode()).items() if k != "checksum"}


@given(document=changed(DOCUMENT))
@example(document=[1])
@fuzz(300)
def test_repository_documents_whose_checksum_was_made_to_fit(document: Any) -> None:
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        document = {**document, "checksum": blake3(_canonical(document)).hexdigest()}
    try:
        text = json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"
    except RecursionError:
        text = json.dumps(document).encode()  # less deep when it is written; whoever damages it may write it so
    with bounded(len(text), factor=200), contextlib.suppress(FormatError):
        RepositoryDocument.decode(text)


def a_slot() -> dict[str, Any]:
    writer = sealed.SEALING.ring.writer if sealed.SEALING.ring else None
    assert sealed.SEALING.ring is not None
    slot = Slot(
        repository=made.REPOSITORY.hex(), name="0123456789abcdef", label="first", role="admin", machine=None,
        created="2026-01-02T03:04:05Z", box="00" * 32, writer=writer.certificate.public.hex() if writer else None,
        lock={"kind": "file", "salt": "00" * 16, "check": "00" * 8},
    )  # fmt: skip
    assert sealed.SEALING.ring.root_private is not None
    full = seal_slot(slot, Payload(sealed.SEALING.ring, bytes(32)), bytes(32), sealed.SEALING.ring.root_private)
    return asdict(full)


SLOT = a_slot()


@given(document=changed(SLOT))
@fuzz(200)
def test_key_slots(document: Any) -> None:
    try:
        text = encode_document(document)
    except RecursionError:
        text = json.dumps(document).encode()
    with bounded(len(text), factor=200), contextlib.suppress(FormatError):
        slot = decode_slot(text, key="keys/0123456789abcdef", repository=made.REPOSITORY.hex())
        if slot is not None and asdict(slot) != SLOT:
            with contextlib.suppress(CorruptObject):
                assert open_slot(slot, bytes(32)) is None, "a changed slot was opened"


def test_what_can_be_read_and_is_too_deep_to_be_written_again_is_damage() -> None:
    document: dict[str, Any] = {**DOCUMENT, "abilities": {"deep": nested(700)}}
    document["checksum"] = blake3(_canonical(document)).hexdigest()
    with pytest.raises(CorruptObject):
        RepositoryDocument.decode(json.dumps(document).encode())
    slot = json.dumps({**SLOT, "lock": {"deep": nested(700)}}).encode()
    with pytest.raises(CorruptObject):
        decode_slot(slot, key="keys/0123456789abcdef", repository=made.REPOSITORY.hex())


@given(payload=changed(json.loads(json.dumps(_payload_out(Payload(sealed.SEALING.ring, bytes(32)))))))
@fuzz(200)
def test_what_is_inside_a_key_slot(payload: Any) -> None:
    """Who makes a slot holds the lock's key: an old administrator, say."""
    slot = Slot(**{**SLOT, "sealed": "", "signature": ""})
    text = json.dumps(payload).encode()
    box = bytes(12) + AESGCM(bytes(32)).encrypt(bytes(12), text, _head(slot))
    slot = replace(slot, sealed=base64.b64encode(box).decode())
    with bounded(len(text), factor=200), contextlib.suppress(CorruptObject):
        open_slot(slot, bytes(32))


@given(text=st.text(max_size=40) | st.sampled_from(["%", "~", "~A", "%C3", "%zz", "~%20", "..", "a" * 300, "%00"]))
@fuzz(300)
def test_names(text: str) -> None:
    with bounded(len(text)), contextlib.suppress(FailbackError):
        decode_machine(text)
    with bounded(len(text)), contextlib.suppress(FailbackError):
        parse_point(text)
