"""How objects of one repository are sealed: keys of objects, nonces and ids of chunks (FORMAT.md, sections 2 and 3)."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from manifests.certificate import SIGNED_SIZE, Writer
from manifests.errors import CorruptObject, KeyRefused

Buffer = bytes | bytearray | memoryview
HEADER_SIZE = 128
SALT_SIZE = 32
TAG_SIZE = 16
"""Bytes that sealing adds to what it seals."""
BODY_SLOT = 2**32 - 1
"""The slot of a sealed body and of a pack's table; chunks have those from 0."""
_BOUND = slice(32, 64)
"""The part of an envelope that is associated data: all but salt and signature."""
_OBJECT_KEY = "failback 2026 object key v1"
_SALT = "failback 2026 salt v1"
_SLOT = struct.Struct("<I")
_NO_CHUNK = bytes(32)
_NO_HEAD = bytes(16)
REPAIR = "`failback verify` lists what is damaged; restore an undamaged point or copy of this repository"


@dataclass(frozen=True, slots=True)
class Generation:
    """The ring keys that objects of one generation are sealed with, 32 bytes each."""

    index: bytes = field(repr=False)
    data: bytes | None = field(default=None, repr=False)
    """None for a janitor: it reads what is there, and no chunk."""


@dataclass(frozen=True, slots=True)
class Ring:
    """What one key slot opens."""

    root: bytes
    """Ed25519 public key, 32 bytes: it certifies writers, and its hash is the ring's fingerprint."""
    generations: Mapping[int, Generation]
    """By number, from 1; the highest one is written with."""
    ids: bytes | None = field(default=None, repr=False)
    """Keys the ids of chunks, in all generations: who can read no index sees no id. None for a janitor."""
    writer: Writer | None = None
    """Signs what this client writes; None for one that only reads."""
    root_private: bytes | None = field(default=None, repr=False)
    """Ed25519 private key, 32 bytes, of an administrator."""

    @property
    def generation(self) -> int:
        return max(self.generations)


class ObjectKey:
    """Seals and opens the parts of one object. Each slot is used once: the salt is this object's own."""

    __slots__ = ("_bound", "_cipher")

    def __init__(self, ring_key: bytes, header: bytes | memoryview) -> None:
        salt = bytes(header[:SALT_SIZE])
        self._cipher = AESGCM(blake3(ring_key + salt, derive_key_context=_OBJECT_KEY).digest())
        self._bound = bytes(header[_BOUND])

    def seal(
        self,
        slot: int,
        plain: bytes | memoryview,
        *,
        chunk: bytes = _NO_CHUNK,
        head: bytes = _NO_HEAD,
        place: str = "",
    ) -> bytes:
        return self._cipher.encrypt(self._nonce(slot), plain, self._associated(slot, chunk, head, place))

    def open(
        self,
        slot: int,
        sealed: bytes | memoryview,
        *,
        chunk: bytes = _NO_CHUNK,
        head: bytes = _NO_HEAD,
        place: str = "",
        name: str,
    ) -> bytes:
        """Raises CorruptObject when a bit of it, or of what it is bound to, is not what was sealed."""
        try:
            return self._cipher.decrypt(self._nonce(slot), sealed, self._associated(slot, chunk, head, place))
        except InvalidTag:
            raise _damaged(name) from None

    def seal_chunk_into(self, slot: int, plain: bytes | memoryview, chunk: bytes, buffer: memoryview) -> None:
        """As `seal`, into a buffer of exactly the sealed length."""
        self._cipher.encrypt_into(self._nonce(slot), plain, self._associated(slot, chunk, _NO_HEAD, ""), buffer)

    def open_chunk_into(
        self, slot: int, sealed: bytes | memoryview, chunk: bytes, buffer: memoryview, *, name: str
    ) -> memoryview:
        """As `open`, into a buffer that is long enough; returns the part of it that was filled."""
        found = buffer[: max(len(sealed) - TAG_SIZE, 0)]
        try:
            associated = self._associated(slot, chunk, _NO_HEAD, "")
            self._cipher.decrypt_into(self._nonce(slot), sealed, associated, found)
        except InvalidTag:
            raise _damaged(name) from None
        return found

    @staticmethod
    def _nonce(slot: int) -> bytes:
        return slot.to_bytes(12, "little")

    def _associated(self, slot: int, chunk: bytes, head: bytes, place: str) -> bytes:
        return b"".join((self._bound, _SLOT.pack(slot), chunk, head, place.encode("ascii")))


@dataclass(frozen=True)
class Sealing:
    """All that sealing and opening an object of a repository needs. Without a ring nothing is encrypted or signed."""

    repository: bytes
    """Id of the repository, 16 bytes."""
    ring: Ring | None = None
    revoked: Mapping[bytes, frozenset[bytes]] = field(default_factory=dict)
    """Writers no longer believed, by public key; and the BLAKE3 of those of their objects that still are."""

    @property
    def encrypted(self) -> bool:
        return self.ring is not None

    @property
    def generation(self) -> int:
        """What new objects are sealed with; 0 when not encrypted."""
        return self.ring.generation if self.ring else 0

    def at(self, generation: int) -> Sealing:
        """To write objects of this generation, which is held; for what refers to objects of an older one."""
        if self.ring is None or generation == self.generation:
            return self
        return replace(self, ring=replace(self.ring, generations={generation: self.ring.generations[generation]}))

    @property
    def overhead(self) -> int:
        """Bytes that sealing adds to each chunk and body."""
        return TAG_SIZE if self.ring else 0

    @property
    def signed_size(self) -> int:
        """Bytes that a signature adds to an object named by its place."""
        return SIGNED_SIZE if self.ring else 0

    def chunk_hasher(self) -> Callable[[Buffer], bytes]:
        """What gives the id of a chunk that is not all zeros. Raises KeyRefused for a janitor."""
        if self.ring is None:
            return lambda plain: blake3(plain).digest()
        key = self.ring.ids
        if key is None:
            raise _no_data()
        return lambda plain: blake3(plain, key=key).digest()

    def data_key(self, header: bytes | memoryview) -> ObjectKey | None:
        """For the chunks and the table of a pack with this envelope. None: it is not encrypted."""
        if self.ring is None:
            return None
        keys = self._generation(header)
        if keys.data is None:
            raise _no_data()
        return ObjectKey(keys.data, header)

    def index_key(self, header: bytes | memoryview) -> ObjectKey | None:
        """For the body of any other object with this envelope. None: it is not encrypted."""
        return ObjectKey(self._generation(header).index, header) if self.ring else None

    def _generation(self, header: bytes | memoryview) -> Generation:
        """`check_header` has refused those that are not held."""
        assert self.ring is not None
        return self.ring.generations[int.from_bytes(header[44:48], "little")]


def fresh_salt(contents: bytes) -> bytes:
    """32 bytes that no other object has. `contents`: a digest of all that will be sealed.

    The kernel's randomness alone would do, were it not for machines resumed twice from one memory image: these may draw
    the same bytes for different contents. Mixed with the contents, equal salts mean equal contents, so that no nonce is
    ever used for two plaintexts.
    """
    now = struct.pack("<QqI", os.getpid(), time.time_ns(), len(contents))
    return blake3(os.urandom(SALT_SIZE) + now + contents, derive_key_context=_SALT).digest()


def _damaged(name: str) -> CorruptObject:
    return CorruptObject(f"{name} is damaged or was exchanged: its authentication tag does not match", remedy=REPAIR)


def _no_data() -> KeyRefused:
    return KeyRefused(
        "this key opens no data: it is a janitor's",
        remedy="use the key of an exporter, an importer or an administrator",
    )
