"""Rings with keys that are known, and repositories sealed with them."""

from __future__ import annotations

import json

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manifests.certificate import ANY_MACHINE, Certificate, Role, Writer
from manifests.sealing import Generation, Ring, Sealing


def known_key(name: str) -> bytes:
    return blake3(name.encode(), derive_key_context="failback tests known keys").digest()


def public_of(private: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def known_ring(repository: bytes, roles: Role = Role.ADMIN, *, generations: int = 1) -> Ring:
    """The same ring for the same repository, its writer included: what it signs is the same from run to run."""
    root, private = known_key("root"), known_key("writer")
    unsigned = Certificate(public_of(private), roles, ANY_MACHINE, b"")
    signature = Ed25519PrivateKey.from_private_bytes(root).sign(
        b"failback 2026 writer certificate v1" + repository + unsigned.encode()[:72]
    )
    return Ring(
        root=public_of(root),
        generations={
            number: Generation(index=known_key(f"index {number}"), data=known_key(f"data {number}"))
            for number in range(1, generations + 1)
        },
        ids=known_key("ids"),
        writer=Writer(private, Certificate(unsigned.public, roles, ANY_MACHINE, signature)),
        root_private=root,
    )


def ring_json(sealing: Sealing) -> str:
    """What the independent reader needs to open a repository."""
    ring = sealing.ring
    if ring is None:
        return "{}"
    assert ring.ids is not None
    keys = {
        str(number): {"index": found.index.hex(), "data": (found.data or b"").hex()}
        for number, found in ring.generations.items()
    }
    return json.dumps({"root": ring.root.hex(), "ids": ring.ids.hex(), "generations": keys})
