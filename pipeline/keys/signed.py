"""What a writer has signed: the objects that stay good when its key is revoked."""

from __future__ import annotations

from blake3 import blake3

from manifests.certificate import SIGNED_SIZE
from manifests.envelope import TRAILER_SIZE
from manifests.slot import Slot
from pipeline.errors import NotFound
from pipeline.repository import Repository

_LASTING = (
    "manifests/", "tombstones/", "sets/", "relocations/", "verified/", "holds/", "plans/", "runs/", "leases/"
)  # fmt: skip
"""Where objects are that people still need when their writer is gone. Sessions are not: they end with their writer."""


def signed_by(repository: Repository, slot: Slot) -> list[str]:
    """BLAKE3, hexadecimal, of all lasting objects that carry the slot's certificate. Reads each of them once."""
    public = bytes.fromhex(slot.writer or "")
    found = []
    for prefix in _LASTING:
        for info in repository.store.list(prefix):
            try:
                data = bytes(repository.store.get(info.key))
            except NotFound:
                continue
            if data[-TRAILER_SIZE - SIGNED_SIZE :][:32] == public:
                found.append(blake3(data).hexdigest())
    return found
