"""Key slots: how a ring is kept in the bucket, for those who can open it (FORMAT.md, section 12)."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from manifests.certificate import Certificate, Writer
from manifests.errors import CorruptObject, Forged, NewerFormat
from manifests.sealing import Generation, Ring

PREFIX = "keys/"
GENERATIONS = "keys/generations/"
REVOKED = "keys/revoked/"
ROLES = ("admin", "exporter", "importer", "janitor", "conductor")
MAX_DOCUMENT = 4 << 20
_SLOT = re.compile("[0-9a-f]{16}")
_SIGN = b"failback 2026 key document v1"
_BOX = "failback 2026 generation box v1"
_NONCE = 12


@dataclass(frozen=True, slots=True)
class Slot:
    """One key slot. All but `sealed` is readable by anyone, and none of it can be changed without the root key."""

    repository: str
    """Id of the repository, 32 hexadecimal digits."""
    name: str
    """16 hexadecimal digits: its key is `keys/<name>`."""
    label: str
    role: str
    machine: str | None
    """The one machine an exporter may write; None for any."""
    created: str
    box: str
    """X25519 public key, hexadecimal: later generations are sealed to it."""
    writer: str | None
    """Ed25519 public key of the writer, hexadecimal."""
    lock: dict[str, Any]
    """What opens the slot: `kind` is passphrase, file or command; the rest depends on it."""
    sealed: str = ""
    """The payload, AES-256-GCM under the lock's key: 12 bytes nonce, ciphertext, tag; base64."""
    signature: str = ""
    """The root's, hexadecimal, over all other fields."""
    format: int = 1

    @property
    def key(self) -> str:
        return f"{PREFIX}{self.name}"


@dataclass(frozen=True, slots=True)
class Payload:
    """What is inside a slot."""

    ring: Ring
    box_private: bytes = field(repr=False)
    document: str = ""
    """BLAKE3, hexadecimal, of the repository document: another one under the same id is refused."""


def new_slot_name() -> str:
    return os.urandom(8).hex()


def seal_slot(slot: Slot, payload: Payload, lock_key: bytes, root_private: bytes) -> Slot:
    """The slot with its payload and signature. `lock_key`: 32 bytes that `slot.lock` leads to."""
    nonce = os.urandom(_NONCE)
    plain = json.dumps(_payload_out(payload)).encode()
    sealed = nonce + AESGCM(lock_key).encrypt(nonce, plain, _head(slot))
    full = replace(slot, sealed=base64.b64encode(sealed).decode("ascii"))
    return replace(full, signature=sign(asdict(full), root_private))


def open_slot(slot: Slot, lock_key: bytes) -> Payload | None:
    """What is inside; None when the key is not the one. Raises CorruptObject when it opens and is not a payload."""
    try:
        sealed = base64.b64decode(slot.sealed, validate=True)
        plain = AESGCM(lock_key).decrypt(sealed[:_NONCE], sealed[_NONCE:], _head(slot))
    except (InvalidTag, ValueError, binascii.Error):
        return None
    try:
        payload = _payload_in(json.loads(plain), slot)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptObject(f"{slot.key} opens, but holds no ring: {error}", remedy="use another key slot") from error
    check_signature(asdict(slot), payload.ring.root, slot.key)
    return payload


def decode_slot(data: bytes, *, key: str, repository: str) -> Slot | None:
    """The slot found at `key`; None when it belongs to another repository. Raises CorruptObject or NewerFormat."""
    document = read_document(data, key)
    try:
        slot = Slot(**document)
    except TypeError as error:
        raise CorruptObject(f"{key} is not a key slot: {error}", remedy=_OTHER) from error
    if slot.repository != repository:
        return None
    texts = (slot.name, slot.label, slot.created, slot.box, slot.sealed, slot.signature)
    if not all(isinstance(text, str) for text in texts) or not isinstance(slot.lock, dict):
        raise CorruptObject(f"{key} is not a key slot", remedy=_OTHER)
    if slot.key != key or not _SLOT.fullmatch(slot.name) or slot.role not in ROLES:
        raise CorruptObject(f"{key} is not the slot that belongs there", remedy=_OTHER)
    try:
        _head(slot)
    except RecursionError as error:
        raise CorruptObject(f"{key} is nested too deeply", remedy=_OTHER) from error
    return slot


def encode_document(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def read_document(data: bytes, key: str) -> dict[str, Any]:
    """A JSON document under `keys/`. Raises CorruptObject or NewerFormat."""
    try:
        if len(data) > MAX_DOCUMENT:
            raise ValueError("it is too long")
        document = json.loads(data)
        version = document["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptObject(f"{key} is damaged: {error}", remedy=_OTHER) from error
    if version != 1:
        raise NewerFormat(f"{key} has format {version}", remedy="upgrade failback on this host")
    return dict(document)


def sign(document: dict[str, Any], root_private: bytes) -> str:
    """Signature, hexadecimal, over a document without its field `signature`."""
    return Ed25519PrivateKey.from_private_bytes(root_private).sign(_signed(document)).hex()


def check_signature(document: dict[str, Any], root: bytes, key: str) -> None:
    """Raises Forged unless the root signed it."""
    try:
        signature = bytes.fromhex(document.get("signature", ""))
        Ed25519PublicKey.from_public_bytes(root).verify(signature, _signed(document))
    except (InvalidSignature, ValueError, TypeError, RecursionError):
        raise Forged(
            f"{key} was not signed by the repository's root key: someone without the right wrote it",
            remedy="restore the bucket's older version of it, and find out who may write there",
        ) from None


def new_box() -> tuple[bytes, str]:
    """(private key, public key in hexadecimal) that later generations are sealed to."""
    private = X25519PrivateKey.generate()
    return private.private_bytes_raw(), private.public_key().public_bytes_raw().hex()


def seal_generation(box: str, number: int, keys: Generation, *, with_data: bool) -> dict[str, str]:
    """The keys of a generation for the slot whose public key is `box`."""
    ephemeral = X25519PrivateKey.generate()
    public = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(box)))
    key = blake3(shared + public + bytes.fromhex(box), derive_key_context=_BOX).digest()
    plain = keys.index + (keys.data if with_data and keys.data else b"")
    # The key is used once, so the nonce may be constant.
    sealed = AESGCM(key).encrypt(bytes(_NONCE), plain, number.to_bytes(8, "little"))
    return {"ephemeral": public.hex(), "sealed": sealed.hex()}


def open_generation(sealed: dict[str, str], box_private: bytes, number: int, name: str) -> Generation:
    """Raises CorruptObject."""
    try:
        private = X25519PrivateKey.from_private_bytes(box_private)
        public = bytes.fromhex(sealed["ephemeral"])
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
        mine = private.public_key().public_bytes_raw()
        key = blake3(shared + public + mine, derive_key_context=_BOX).digest()
        plain = AESGCM(key).decrypt(bytes(_NONCE), bytes.fromhex(sealed["sealed"]), number.to_bytes(8, "little"))
    except (InvalidTag, ValueError, KeyError, TypeError) as error:
        raise CorruptObject(f"{name} does not open with this slot's key", remedy=_OTHER) from error
    if len(plain) not in (32, 64):
        raise CorruptObject(f"{name} holds {len(plain)} bytes of keys", remedy=_OTHER)
    return Generation(plain[:32], plain[32:] or None)


def _head(slot: Slot) -> bytes:
    return _canonical({k: v for k, v in asdict(slot).items() if k not in ("sealed", "signature")})


def _signed(document: dict[str, Any]) -> bytes:
    return _SIGN + _canonical({k: v for k, v in document.items() if k != "signature"})


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _payload_out(payload: Payload) -> dict[str, Any]:
    ring = payload.ring
    return {
        "root": ring.root.hex(),
        "root_private": ring.root_private.hex() if ring.root_private else None,
        "ids": ring.ids.hex() if ring.ids else None,
        "generations": {
            str(number): {"index": keys.index.hex(), "data": keys.data.hex() if keys.data else None}
            for number, keys in ring.generations.items()
        },
        "writer": {"private": ring.writer.private.hex(), "certificate": ring.writer.certificate.encode().hex()}
        if ring.writer
        else None,
        "box": payload.box_private.hex(),
        "document": payload.document,
    }


def _payload_in(found: dict[str, Any], slot: Slot) -> Payload:
    writer = None
    if found["writer"]:
        certificate = Certificate.decode(bytes.fromhex(found["writer"]["certificate"]), name=slot.key)
        writer = Writer(_key(found["writer"]["private"]), certificate)
    generations = {
        int(number): Generation(_key(keys["index"]), _key(keys["data"]) if keys["data"] else None)
        for number, keys in found["generations"].items()
    }
    if not generations:
        raise ValueError("no generation")
    ring = Ring(
        root=_key(found["root"]),
        generations=generations,
        ids=_key(found["ids"]) if found["ids"] else None,
        writer=writer,
        root_private=_key(found["root_private"]) if found["root_private"] else None,
    )
    return Payload(ring, _key(found["box"]), found["document"])


def _key(text: str) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != 32:
        raise ValueError(f"a key of {len(found)} bytes")
    return found


_OTHER = "use another key slot, or restore this one from a copy of the bucket"
