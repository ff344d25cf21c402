"""The envelope of every object and the sealed body (FORMAT.md, section 2)."""

from __future__ import annotations

import os
import struct
from enum import IntEnum

import zstandard
from blake3 import blake3

from manifests.errors import CorruptObject, NewerFormat, WrongRepository

HEADER_SIZE = 128
MAX_BODY = 64 << 20
TRAILER_SIZE = 32
BODY_HEAD = struct.Struct("<B7xQ")
_HEADER = struct.Struct("<32s8sBBBBI16s64x")
_MAGIC = b"failback"
_VERSION = 1


class Kind(IntEnum):
    """Type byte of an object."""

    PACK = 1
    PAGE = 2
    SEGMENT = 3
    PACK_LIST = 4
    PAGE_DIRECTORY = 5
    MANIFEST = 6
    TOMBSTONE = 7
    SESSION = 8
    VOID = 9
    JOURNAL = 10
    HEARTBEAT = 11
    SESSION_END = 12
    SET = 13
    SEGMENT_TABLE = 14


def new_header(kind: Kind, repository: bytes) -> bytes:
    """A header with a fresh salt. Call it when the contents are complete."""
    return _HEADER.pack(os.urandom(32), _MAGIC, kind, _VERSION, 0, 0, 0, repository)


def check_header(data: bytes | memoryview, *, repository: bytes, name: str) -> Kind:
    """The object's type. Raises CorruptObject, NewerFormat or WrongRepository; `name` is the object's key."""
    if len(data) < HEADER_SIZE:
        raise CorruptObject(f"{name} is only {len(data)} bytes long", remedy=_REPAIR)
    _salt, magic, kind, version, flags, zero, generation, owner = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise CorruptObject(f"{name} is not an object of failback", remedy=_REPAIR)
    if version != _VERSION or flags & ~1 or zero or kind not in Kind.__members__.values():
        raise NewerFormat(
            f"{name} was written by a newer failback (type {kind}, version {version}, flags {flags:#x})",
            remedy="upgrade failback on this host",
        )
    if flags & 1:
        raise NewerFormat(f"{name} is encrypted", remedy="use a version of failback that reads encrypted repositories")
    if generation:
        raise CorruptObject(f"{name} is not encrypted, yet has a key generation", remedy=_REPAIR)
    if owner != repository:
        raise WrongRepository(
            f"{name} belongs to repository {owner.hex()}, not to {repository.hex()}",
            remedy="check the repository address; objects of two repositories were mixed",
        )
    return Kind(kind)


_REPAIR = "`failback verify` lists what is damaged; restore an undamaged point or copy of this repository"


def object_id(data: bytes | bytearray | memoryview) -> bytes:
    """Id of an object named by id: BLAKE3 of all its stored bytes."""
    return blake3(data).digest()


def decompress(decompressor: zstandard.ZstdDecompressor, frame: bytes | memoryview, size: int, *, name: str) -> bytes:
    """The `size` bytes in a zstd frame that says so itself. Raises CorruptObject.

    The frame's own length is checked first: zstandard trusts it more than any limit and allocates that much.
    """
    try:
        found = zstandard.frame_content_size(frame)
        if found != size or size == 0:
            raise CorruptObject(f"{name} has a frame of {found} bytes instead of {size}", remedy=_REPAIR)
        return decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CorruptObject(f"{name} does not decompress: {error}", remedy=_REPAIR) from error


def encode_body(plain: bytes) -> bytes:
    """A sealed body: one zstd frame, or the plain bytes when that is not smaller. ValueError above 64 MiB."""
    if len(plain) > MAX_BODY:
        raise ValueError(f"a body of {len(plain)} bytes is too long to be read again")
    frame = zstandard.ZstdCompressor(level=3).compress(plain)
    codec = 1 if len(frame) < len(plain) else 0
    return BODY_HEAD.pack(codec, len(plain)) + (frame if codec else plain)


def decode_body(data: bytes | memoryview, *, name: str) -> bytes:
    """The plain bytes of a sealed body. Raises CorruptObject."""
    if len(data) < BODY_HEAD.size:
        raise CorruptObject(f"{name} is cut short", remedy=_REPAIR)
    codec, length = BODY_HEAD.unpack_from(data)
    payload = data[BODY_HEAD.size :]
    if length > MAX_BODY or codec > 1 or bytes(data[1:8]) != bytes(7):
        raise CorruptObject(f"{name} has a damaged body (codec {codec}, length {length})", remedy=_REPAIR)
    if codec:
        return decompress(zstandard.ZstdDecompressor(), payload, length, name=name)
    if len(payload) != length:
        raise CorruptObject(f"{name} has {len(payload)} bytes instead of {length}", remedy=_REPAIR)
    return bytes(payload)


def seal_by_id(kind: Kind, plain: bytes, *, repository: bytes) -> tuple[bytes, bytes]:
    """(id, stored bytes) of an object under `pages/`."""
    data = new_header(kind, repository) + encode_body(plain)
    return object_id(data), data


def open_by_id(data: bytes | memoryview, kind: Kind, expected_id: bytes, *, repository: bytes, name: str) -> bytes:
    """The plain body of an object under `pages/`, after checking that its bytes are those its name stands for."""
    view = memoryview(data)
    if object_id(view) != expected_id:
        raise CorruptObject(f"{name} is damaged: its bytes do not match its name", remedy=_REPAIR)
    _expect(check_header(view, repository=repository, name=name), kind, name)
    return decode_body(view[HEADER_SIZE:], name=name)


def place_checksum(content: bytes | memoryview, key: str) -> bytes:
    """The trailer of an object named by its place: a copy of it under another key is noticed."""
    hasher = blake3(content)
    hasher.update(key.encode("ascii"))
    return hasher.digest()


def seal_by_place(kind: Kind, plain: bytes, *, repository: bytes, key: str) -> bytes:
    """Stored bytes of an object that is named by its place `key`: manifest, tombstone, session and the like."""
    data = new_header(kind, repository) + encode_body(plain)
    return data + place_checksum(data, key)


def open_by_place(data: bytes | memoryview, *kinds: Kind, repository: bytes, key: str) -> tuple[Kind, bytes]:
    """(type, plain body) of the object found at `key`; its type must be one of `kinds`. Raises CorruptObject."""
    view = memoryview(data)
    if len(view) < HEADER_SIZE + BODY_HEAD.size + TRAILER_SIZE:
        raise CorruptObject(f"{key} is only {len(view)} bytes long", remedy=_REPAIR)
    content = view[:-TRAILER_SIZE]
    if place_checksum(content, key) != bytes(view[-TRAILER_SIZE:]):
        raise CorruptObject(f"{key} is damaged or was moved there: its checksum does not match", remedy=_REPAIR)
    kind = check_header(content, repository=repository, name=key)
    if kind not in kinds:
        _expect(kind, kinds[0], key)
    return kind, decode_body(content[HEADER_SIZE:], name=key)


def _expect(kind: Kind, wanted: Kind, name: str) -> None:
    if kind != wanted:
        raise CorruptObject(f"{name} is a {kind.name.lower()}, not a {wanted.name.lower()}", remedy=_REPAIR)
