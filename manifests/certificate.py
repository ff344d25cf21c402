"""Who may write what: signatures of objects, and the certificates of those who make them (FORMAT.md, section 2)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntFlag

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from manifests.errors import CorruptObject, Forged, UsageError

SIGNATURE_SIZE = 64
ANY_MACHINE = bytes(32)
_CERTIFICATE = struct.Struct("<32sB7x32s64s")
SIGNED_SIZE = _CERTIFICATE.size
"""Bytes of a certificate, at the end of a signed object, before its place checksum."""
_CERTIFY = b"failback 2026 writer certificate v1"
_MACHINE = "failback 2026 machine scope v1"
_FINGERPRINT = "failback 2026 ring fingerprint v1"


class Role(IntFlag):
    """What a writer's signature is good for."""

    EXPORT = 1
    """Sessions and points of the machine the certificate names."""
    IMPORT = 2
    """Records of what was restored and verified."""
    COLLECT = 4
    """Tombstones, void records and what a collection writes."""
    ADMIN = 8
    """Everything."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The root's word that a writer's key may sign in some roles, for one machine or for all."""

    public: bytes
    roles: Role
    machine: bytes
    """BLAKE3, key derivation mode, of the encoded machine name; 32 zero bytes for any machine."""
    signature: bytes

    def encode(self) -> bytes:
        return _CERTIFICATE.pack(self.public, self.roles, self.machine, self.signature)

    @classmethod
    def decode(cls, data: bytes | memoryview, *, name: str) -> Certificate:
        """Raises CorruptObject. It is not checked yet: see `check`."""
        public, roles, machine, signature = _CERTIFICATE.unpack(data)
        if bytes(data[33:40]) != bytes(7) or not roles or roles & ~15:
            raise CorruptObject(f"{name} has a damaged certificate")
        return cls(public, Role(roles), machine, signature)

    def check(self, root: bytes, repository: bytes, *, name: str) -> None:
        """Raises Forged unless the root signed it for this repository."""
        try:
            Ed25519PublicKey.from_public_bytes(root).verify(self.signature, self._text(repository))
        except (InvalidSignature, ValueError):
            raise Forged(
                f"{name} was signed by a writer whom the repository's root key does not certify",
                remedy="someone without the right wrote it: compare with the recovery sheet, and restore the"
                " bucket's older version of this object",
            ) from None

    def _text(self, repository: bytes) -> bytes:
        return _CERTIFY + repository + _CERTIFICATE.pack(self.public, self.roles, self.machine, b"")[:-SIGNATURE_SIZE]


@dataclass(frozen=True, slots=True)
class Writer:
    """A private key with the certificate of its public half."""

    private: bytes = field(repr=False)
    """Ed25519 private key, 32 bytes."""
    certificate: Certificate

    @classmethod
    def new(cls, root_private: bytes, repository: bytes, roles: Role, machine: str = "") -> Writer:
        """A new key, certified. `machine`: its encoded name, or empty for any."""
        if machine and roles != Role.EXPORT:
            raise UsageError("only the key of an exporter is bound to a machine", remedy="leave the machine away")
        private = Ed25519PrivateKey.generate()
        scope = machine_scope(machine) if machine else ANY_MACHINE
        unsigned = Certificate(private.public_key().public_bytes_raw(), roles, scope, b"")
        signature = Ed25519PrivateKey.from_private_bytes(root_private).sign(unsigned._text(repository))
        return cls(private.private_bytes_raw(), Certificate(unsigned.public, roles, scope, signature))

    def sign(self, text: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.private).sign(text)


def machine_scope(machine: str) -> bytes:
    return blake3(machine.encode("ascii"), derive_key_context=_MACHINE).digest()


def verify_signature(public: bytes, signature: bytes, text: bytes, *, name: str) -> None:
    """Raises CorruptObject."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except (InvalidSignature, ValueError):
        raise CorruptObject(f"{name} is damaged or forged: its signature does not match") from None


def fingerprint(root: bytes) -> str:
    """What people compare and clients pin: 32 hexadecimal digits."""
    return blake3(root, derive_key_context=_FINGERPRINT).hexdigest(16)
