"""Key slots are what the format says: opened here by other implementations of every cipher in them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from Crypto.Cipher import AES
from Crypto.Protocol.DH import import_x25519_private_key, import_x25519_public_key, key_agreement
from Crypto.Signature import eddsa

from manifests.certificate import fingerprint
from manifests.sealing import Generation
from manifests.slot import decode_slot, new_box, open_generation, read_document, seal_generation
from pipeline.errors import CorruptObject, KeyRefused, NewerFormat, UsageError
from pipeline.keys.locks import KeyFile, Passphrase
from pipeline.keys.ring import put_slot, rotate_data
from pipeline.repository import Repository
from pipeline.store.memory import MemoryStore

WORDS = "nine lives of a stray cät"


def canonical(document: dict[str, Any], *left_out: str) -> bytes:
    kept = {k: v for k, v in document.items() if k not in left_out}
    return json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()


def payload(document: dict[str, Any], lock_key: bytes) -> dict[str, Any]:
    sealed = base64.b64decode(document["sealed"])
    cipher = AES.new(lock_key, AES.MODE_GCM, nonce=sealed[:12])
    cipher.update(canonical(document, "sealed", "signature"))
    found: dict[str, Any] = json.loads(cipher.decrypt_and_verify(sealed[12:-16], sealed[-16:]))
    return found


def only_slot(store: MemoryStore) -> dict[str, Any]:
    [info] = store.list("keys/")
    return dict(json.loads(bytes(store.get(info.key))))


def test_a_passphrase_s_slot_is_what_the_format_says() -> None:
    store = MemoryStore()
    repository = Repository.init(store, lock=Passphrase(lambda: WORDS, "of a test"))
    document = only_slot(store)
    lock = document["lock"]
    key = hash_secret_raw(
        WORDS.encode(), bytes.fromhex(lock["salt"]), lock["iterations"], lock["memory_kib"], lock["lanes"], 32, Type.ID
    )
    inside = payload(document, key)
    root = bytes.fromhex(inside["root"])
    assert fingerprint(root) == repository.document.encryption.fingerprint  # type: ignore[union-attr]
    assert inside["document"] == blake3(bytes(store.get("repository.json"))).hexdigest()
    text = b"failback 2026 key document v1" + canonical(document, "signature")
    eddsa.new(eddsa.import_public_key(root), "rfc8032").verify(text, bytes.fromhex(document["signature"]))


def test_a_key_file_s_slot_is_what_the_format_says(tmp_path: Path) -> None:
    store = MemoryStore()
    Repository.init(store, lock=KeyFile(tmp_path / "key"))
    document = only_slot(store)
    material = bytes.fromhex((tmp_path / "key").read_text().removeprefix("failback-key-1 ").strip())
    salt = bytes.fromhex(document["lock"]["salt"])
    inside = payload(document, blake3(material + salt, derive_key_context="failback 2026 key file v1").digest())
    assert set(inside["generations"]) == {"1"}


def test_a_generation_s_box_is_what_the_format_says(tmp_path: Path) -> None:
    store = MemoryStore()
    repository = Repository.init(store, lock=KeyFile(tmp_path / "key"))
    repository = Repository.open(store, lambda: [KeyFile(tmp_path / "key")])
    assert repository.opened is not None
    ring = repository.opened.ring
    assert rotate_data(store, repository.document, ring, create=True) == 2
    record = json.loads(bytes(store.get("keys/generations/0000000002")))
    [(name, box)] = record["boxes"].items()
    assert name == repository.opened.slot.name
    private = import_x25519_private_key(repository.opened.payload.box_private)
    public = bytes.fromhex(box["ephemeral"])
    shared = key_agreement(static_priv=private, static_pub=import_x25519_public_key(public), kdf=lambda secret: secret)
    mine = bytes.fromhex(repository.opened.slot.box)
    key = blake3(shared + public + mine, derive_key_context="failback 2026 generation box v1").digest()
    sealed = bytes.fromhex(box["sealed"])
    cipher = AES.new(key, AES.MODE_GCM, nonce=bytes(12))
    cipher.update((2).to_bytes(8, "little"))
    keys = cipher.decrypt_and_verify(sealed[:-16], sealed[-16:])
    opened = Repository.open(store, lambda: [KeyFile(tmp_path / "key")])
    assert opened.opened is not None
    assert opened.opened.ring.generations[2] == Generation(keys[:32], keys[32:])
    assert opened.sealing.generation == 2


def test_a_janitor_gets_no_data_key_of_a_new_generation() -> None:
    private, public = new_box()
    box = seal_generation(public, 2, Generation(b"i" * 32, b"d" * 32), with_data=False)
    assert open_generation(box, private, 2, "x") == Generation(b"i" * 32, None)
    with pytest.raises(CorruptObject):
        open_generation(box, private, 3, "x")
    with pytest.raises(CorruptObject):
        open_generation(box, new_box()[0], 2, "x")


def test_a_flipped_byte_anywhere_in_a_slot_opens_nothing_and_is_named(tmp_path: Path) -> None:
    store = MemoryStore()
    Repository.init(store, lock=KeyFile(tmp_path / "key"))
    [info] = store.list("keys/")
    good = bytes(store.get(info.key))
    for at in range(0, len(good) - 1, 3):
        bad = bytearray(good)
        bad[at] ^= 1
        store.put(info.key, bytes(bad))
        with pytest.raises((CorruptObject, NewerFormat, Exception)) as caught:
            Repository.open(store, lambda: [KeyFile(tmp_path / "key")])
        assert type(caught.value).__module__.startswith("manifests.errors"), (at, caught.value)
    store.put(info.key, good)
    Repository.open(store, lambda: [KeyFile(tmp_path / "key")])


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"format": 2}', b'{"format": 1}', b"\xff", b'{"format": 1, "x": ' + b"[" * 100_000, b"1"],
)
def test_what_is_no_slot_is_refused(data: bytes) -> None:
    with pytest.raises((CorruptObject, NewerFormat)):
        decode_slot(data, key="keys/0123456789abcdef", repository="0" * 32)
    if data == b'{"format": 1}':
        assert read_document(data, "keys/x") == {"format": 1}


def test_a_slot_made_while_keys_are_renewed_is_refused(tmp_path: Path) -> None:
    """It takes as long as somebody needs to type a passphrase; the slot would never get the new keys."""
    store = MemoryStore()
    repository = Repository.init(store, lock=KeyFile(tmp_path / "key"))
    ring = repository.sealing.ring
    assert ring is not None
    slots = [info.key for info in store.list("keys/")]
    rotate_data(store, repository.document, ring, create=True)
    with pytest.raises(UsageError, match="generation 2") as caught:
        put_slot(store, repository.document, ring, KeyFile(tmp_path / "b"), role="admin", label="b", create=True)
    assert caught.value.remedy
    assert [info.key for info in store.list("keys/")] == [*slots, "keys/generations/0000000002"]


@pytest.mark.parametrize("role", ["exporter", "importer"])
def test_without_the_newest_keys_nothing_is_written_and_all_else_is_read(tmp_path: Path, role: str) -> None:
    store = MemoryStore()
    repository = Repository.init(store, lock=KeyFile(tmp_path / "key"))
    ring, key = repository.sealing.ring, KeyFile(tmp_path / "b")
    assert ring is not None
    slot = put_slot(store, repository.document, ring, key, role=role, label="b", create=True)
    removed = bytes(store.get(slot.key))
    store.delete_many([slot.key])
    rotate_data(store, repository.document, ring, create=True)
    store.put(slot.key, removed)
    if role == "importer":
        assert Repository.open(store, lambda: [key]).sealing.generation == 1
        return
    with pytest.raises(KeyRefused, match="was not given generation 2") as caught:
        Repository.open(store, lambda: [key])
    assert caught.value.remedy
