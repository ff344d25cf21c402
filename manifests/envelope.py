"""The envelope of every object and the sealed body (FORMAT.md, section 2)."""

from __future__ import annotations

import struct
from enum import IntEnum

import zstandard
from blake3 import blake3

from manifests.certificate import (
    ANY_MACHINE,
    SIGNATURE_SIZE,
    SIGNED_SIZE,
    Certificate,
    Role,
    machine_scope,
    verify_signature,
)
from manifests.errors import CorruptObject, Forged, KeyRefused, NewerFormat, WrongRepository
from manifests.sealing import BODY_SLOT, HEADER_SIZE, REPAIR, ObjectKey, Sealing, fresh_salt

MAX_BODY = 64 << 20
TRAILER_SIZE = 32
BODY_HEAD = struct.Struct("<B7xQ")
_HEADER = struct.Struct("<32s8sBBBBI16s64x")
_MAGIC = b"failback"
_VERSION = 1
_ENCRYPTED, _SIGNED = 1, 2
_SIGNATURE = slice(64, HEADER_SIZE)
_SIGNED_TEXT = b"failback 2026 object signature v1"


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
    RECORD = 15


MAY_SIGN = {
    Kind.MANIFEST: Role.EXPORT,
    Kind.TOMBSTONE: Role.COLLECT,
    Kind.SESSION: Role.EXPORT,
    Kind.VOID: Role.COLLECT,
    Kind.JOURNAL: Role.EXPORT,
    Kind.HEARTBEAT: Role.EXPORT | Role.COLLECT,
    Kind.SESSION_END: Role.EXPORT,
    Kind.SET: Role.EXPORT,
    Kind.RECORD: Role.IMPORT | Role.COLLECT,
}
"""Which role, besides an administrator, may write an object that is named by its place."""


def new_header(kind: Kind, sealing: Sealing, contents: bytes, *, signed: bool = False) -> bytes:
    """A header with a fresh salt. `contents`: a digest of all that the object will hold."""
    flags = (_ENCRYPTED if sealing.encrypted else 0) | (_SIGNED if signed else 0)
    return _HEADER.pack(fresh_salt(contents), _MAGIC, kind, _VERSION, flags, 0, sealing.generation, sealing.repository)


def check_header(data: bytes | memoryview, *, sealing: Sealing, name: str, signed: bool = False) -> Kind:
    """The object's type. Raises CorruptObject, NewerFormat or WrongRepository; `name` is the object's key.

    `signed`: whether an object of an encrypted repository has to be signed.
    """
    if len(data) < HEADER_SIZE:
        raise CorruptObject(f"{name} is only {len(data)} bytes long", remedy=REPAIR)
    _salt, magic, kind, version, flags, zero, generation, owner = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise CorruptObject(f"{name} is not an object of failback", remedy=REPAIR)
    if version != _VERSION or flags & ~(_ENCRYPTED | _SIGNED) or zero or kind not in Kind.__members__.values():
        raise NewerFormat(
            f"{name} was written by a newer failback (type {kind}, version {version}, flags {flags:#x})",
            remedy="upgrade failback on this host",
        )
    if owner != sealing.repository:
        raise WrongRepository(
            f"{name} belongs to repository {owner.hex()}, not to {sealing.repository.hex()}",
            remedy="check the repository address; objects of two repositories were mixed",
        )
    if flags & _ENCRYPTED and not sealing.encrypted:
        raise CorruptObject(f"{name} is encrypted, its repository is not", remedy=REPAIR)
    if not flags & _ENCRYPTED and sealing.encrypted:
        raise Forged(
            f"{name} is not encrypted, its repository is: someone without the keys wrote it",
            remedy="restore the bucket's older version of this object, and find out who may write there",
        )
    if bool(flags & _SIGNED) != (signed and sealing.encrypted):
        raise CorruptObject(f"{name} is {'' if flags & _SIGNED else 'not '}signed", remedy=REPAIR)
    if bool(generation) != sealing.encrypted:
        raise CorruptObject(f"{name} is of key generation {generation}", remedy=REPAIR)
    return Kind(kind)


def generation_of(header: bytes | memoryview) -> int:
    """The generation of keys that an object with this envelope is sealed with."""
    return int(_HEADER.unpack_from(header)[6])


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
            raise CorruptObject(f"{name} has a frame of {found} bytes instead of {size}", remedy=REPAIR)
        return decompressor.decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CorruptObject(f"{name} does not decompress: {error}", remedy=REPAIR) from error


def encode_body(plain: bytes, key: ObjectKey | None = None, *, place: str = "") -> bytes:
    """A sealed body: one zstd frame, or the plain bytes when that is not smaller. ValueError above 64 MiB."""
    if len(plain) > MAX_BODY:
        raise ValueError(f"a body of {len(plain)} bytes is too long to be read again")
    frame = zstandard.ZstdCompressor(level=3).compress(plain)
    codec = 1 if len(frame) < len(plain) else 0
    head = BODY_HEAD.pack(codec, len(plain))
    payload = frame if codec else plain
    return head + (payload if key is None else key.seal(BODY_SLOT, payload, head=head, place=place))


def decode_body(data: bytes | memoryview, key: ObjectKey | None = None, *, name: str, place: str = "") -> bytes:
    """The plain bytes of a sealed body. Raises CorruptObject."""
    if len(data) < BODY_HEAD.size:
        raise CorruptObject(f"{name} is cut short", remedy=REPAIR)
    codec, length = BODY_HEAD.unpack_from(data)
    head, payload = bytes(data[: BODY_HEAD.size]), data[BODY_HEAD.size :]
    if length > MAX_BODY or codec > 1 or head[1:8] != bytes(7):
        raise CorruptObject(f"{name} has a damaged body (codec {codec}, length {length})", remedy=REPAIR)
    if key is not None:
        payload = key.open(BODY_SLOT, payload, head=head, place=place, name=name)
    if codec:
        return decompress(zstandard.ZstdDecompressor(), payload, length, name=name)
    if len(payload) != length:
        raise CorruptObject(f"{name} has {len(payload)} bytes instead of {length}", remedy=REPAIR)
    return bytes(payload)


def seal_by_id(kind: Kind, plain: bytes, *, sealing: Sealing) -> tuple[bytes, bytes]:
    """(id, stored bytes) of an object under `pages/`."""
    header = new_header(kind, sealing, blake3(plain).digest())
    data = header + encode_body(plain, sealing.index_key(header))
    return object_id(data), data


def open_by_id(data: bytes | memoryview, kind: Kind, expected_id: bytes, *, sealing: Sealing, name: str) -> bytes:
    """The plain body of an object under `pages/`, after checking that its bytes are those its name stands for."""
    view = memoryview(data)
    if object_id(view) != expected_id:
        raise CorruptObject(f"{name} is damaged: its bytes do not match its name", remedy=REPAIR)
    _expect(check_header(view, sealing=sealing, name=name), kind, name)
    return decode_body(view[HEADER_SIZE:], sealing.index_key(view), name=name)


def place_checksum(content: bytes | memoryview, key: str) -> bytes:
    """The trailer of an object named by its place: a copy of it under another key is noticed."""
    hasher = blake3(content)
    hasher.update(key.encode("ascii"))
    return hasher.digest()


def seal_by_place(kind: Kind, plain: bytes, *, sealing: Sealing, key: str) -> bytes:
    """Stored bytes of an object that is named by its place `key`: manifest, tombstone, session and the like.

    Raises KeyRefused when the repository is encrypted and this client's key may not write it.
    """
    header = new_header(kind, sealing, blake3(plain).digest(), signed=sealing.encrypted)
    data = header + encode_body(plain, sealing.index_key(header), place=key)
    if sealing.ring is not None:
        writer = sealing.ring.writer
        if writer is None:
            raise KeyRefused(f"this key only reads; it may not write {key}", remedy=_OTHER_KEY)
        if writer.certificate.public in sealing.revoked:
            raise KeyRefused(f"this key has been revoked; it may not write {key}", remedy=_OTHER_KEY)
        if not _has_right(writer.certificate, kind, key):
            raise KeyRefused(f"this key may not write {key}", remedy=_OTHER_KEY)
        data += writer.certificate.encode()
        data = b"".join((data[:64], writer.sign(_signed_text(data, key)), data[HEADER_SIZE:]))
    return data + place_checksum(data, key)


def open_by_place(data: bytes | memoryview, *kinds: Kind, sealing: Sealing, key: str) -> tuple[Kind, bytes]:
    """(type, plain body) of the object found at `key`; its type must be one of `kinds`.

    Raises CorruptObject; its kind Forged when it was written by someone who may not.
    """
    view = memoryview(data)
    if len(view) < HEADER_SIZE + BODY_HEAD.size + sealing.overhead + sealing.signed_size + TRAILER_SIZE:
        raise CorruptObject(f"{key} is only {len(view)} bytes long", remedy=REPAIR)
    content = view[:-TRAILER_SIZE]
    if place_checksum(content, key) != bytes(view[-TRAILER_SIZE:]):
        raise CorruptObject(f"{key} is damaged or was moved there: its checksum does not match", remedy=REPAIR)
    kind = check_header(content, sealing=sealing, name=key, signed=True)
    if kind not in kinds:
        _expect(kind, kinds[0], key)
    if sealing.ring is not None:
        _check_signature(view, kind, sealing, key)
        content = content[:-SIGNED_SIZE]
    return kind, decode_body(content[HEADER_SIZE:], sealing.index_key(content), name=key, place=key)


def _check_signature(data: memoryview, kind: Kind, sealing: Sealing, key: str) -> None:
    assert sealing.ring is not None
    content = data[:-TRAILER_SIZE]
    certificate = Certificate.decode(content[-SIGNED_SIZE:], name=key)
    certificate.check(sealing.ring.root, sealing.repository, name=key)
    verify_signature(certificate.public, bytes(content[_SIGNATURE]), _signed_text(content, key), name=key)
    if not _has_right(certificate, kind, key):
        raise Forged(f"{key} was signed by a writer who may not write it", remedy=_FORGED)
    believed = sealing.revoked.get(certificate.public)
    if believed is not None and object_id(data) not in believed:
        raise Forged(f"{key} was signed with a key that has been revoked", remedy=_FORGED)


def _has_right(certificate: Certificate, kind: Kind, key: str) -> bool:
    if certificate.roles & Role.ADMIN:
        return True
    ours = certificate.machine == ANY_MACHINE or certificate.machine == machine_scope(key.split("/")[1])
    return ours and bool(certificate.roles & MAY_SIGN.get(kind, Role(0)))


def _signed_text(data: bytes | memoryview, key: str) -> bytes:
    hasher = blake3(data[:64])
    hasher.update(bytes(SIGNATURE_SIZE))
    hasher.update(data[HEADER_SIZE:])
    return _SIGNED_TEXT + hasher.digest() + key.encode("ascii")


_OTHER_KEY = "use the key of an administrator, or have one made for this: `failback key add`"
_FORGED = "someone without the right wrote it: restore the bucket's older version of this object"


def _expect(kind: Kind, wanted: Kind, name: str) -> None:
    if kind != wanted:
        raise CorruptObject(f"{name} is a {kind.name.lower()}, not a {wanted.name.lower()}", remedy=REPAIR)
