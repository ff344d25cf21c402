"""The ring of an encrypted repository: made, opened, given to others, renewed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manifests.certificate import Role, Writer, fingerprint
from manifests.names import encode_machine
from manifests.repository import RepositoryDocument
from manifests.sealing import Generation, Ring, Sealing
from manifests.slot import (
    GENERATIONS,
    PREFIX,
    REVOKED,
    ROLES,
    Payload,
    Slot,
    check_signature,
    decode_slot,
    encode_document,
    new_box,
    new_slot_name,
    open_generation,
    open_slot,
    read_document,
    seal_generation,
    seal_slot,
    sign,
)
from pipeline.errors import AlreadyExists, CorruptObject, FormatError, KeyRefused, NotFound, UsageError
from pipeline.keys.locks import Lock, NewLock
from pipeline.store.base import Store

_SIGNS = {
    "admin": Role.ADMIN,
    "exporter": Role.EXPORT,
    "importer": Role.IMPORT,
    "janitor": Role.COLLECT,
    "conductor": Role.EXPORT | Role.IMPORT,
}
_EXPORTS = ("exporter", "conductor")
"""Roles that write data, and must do so with the newest keys."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A ring, the slot that it came from, and whom the repository no longer believes."""

    slot: Slot
    payload: Payload
    revoked: dict[bytes, frozenset[bytes]]

    @property
    def ring(self) -> Ring:
        return self.payload.ring

    def sealing(self, repository: bytes) -> Sealing:
        return Sealing(repository, self.ring, self.revoked)


def new_ring(repository: bytes) -> Ring:
    """An administrator's ring with fresh keys."""
    root = Ed25519PrivateKey.generate()
    private = root.private_bytes_raw()
    return Ring(
        root=root.public_key().public_bytes_raw(),
        generations={1: Generation(os.urandom(32), os.urandom(32))},
        ids=os.urandom(32),
        writer=Writer.new(private, repository, Role.ADMIN),
        root_private=private,
    )


def put_slot(
    store: Store,
    document: RepositoryDocument,
    ring: Ring,
    lock: NewLock,
    *,
    role: str,
    label: str,
    machine: str | None = None,
    create: bool,
) -> Slot:
    """Give `ring`, cut to what the role may know, to whoever can open `lock`. The ring must be an administrator's.

    Raises UsageError when the keys were renewed since `ring` was read: the slot would not have the newest.
    """
    if role not in ROLES:
        raise UsageError(f"there is no role {role!r}", remedy=f"roles are {', '.join(ROLES)}")
    if machine is not None and role != "exporter":
        raise UsageError(f"the key of an {role} is not bound to a machine", remedy="leave --machine away")
    given = _cut(ring, document.id_bytes, role, machine)
    described, lock_key = lock.new(document.id)
    box_private, box = new_box()
    slot = Slot(
        repository=document.id,
        name=new_slot_name(),
        label=label,
        role=role,
        machine=machine,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        box=box,
        writer=given.writer.certificate.public.hex() if given.writer else None,
        lock=described,
    )
    payload = Payload(given, box_private, _document_hash(document))
    slot = seal_slot(slot, payload, lock_key, _root(ring))
    store.put(slot.key, encode_document(asdict(slot)), create=create)
    # Looked at when the slot is there: whoever renews keys later sees it.
    begun = [info.key.removeprefix(GENERATIONS) for info in store.list(GENERATIONS)]
    newest = max((int(number) for number in begun if number.isdigit()), default=0)
    if newest > ring.generation:
        store.delete_many([slot.key])
        raise UsageError(
            f"generation {newest} of the keys was begun meanwhile, and the new slot would not have it",
            remedy="nothing was changed; run the command again",
        )
    return slot


def _cut(ring: Ring, repository: bytes, role: str, machine: str | None) -> Ring:
    root = _root(ring)
    if role == "admin":
        return replace(ring, writer=Writer.new(root, repository, Role.ADMIN))
    scope = encode_machine(machine) if machine is not None else ""
    ring = replace(ring, root_private=None, writer=Writer.new(root, repository, _SIGNS[role], scope))
    if role == "janitor":
        return replace(ring, ids=None, generations={n: Generation(g.index) for n, g in ring.generations.items()})
    return ring


def slots(
    store: Store, document: RepositoryDocument, keys: Sequence[str] | None = None
) -> tuple[list[Slot], list[str]]:
    """(all slots of this repository, what is wrong with those that cannot be read). `keys`: what is listed already."""
    found, problems = [], []
    for key in _listed(store) if keys is None else keys:
        if "/" in key[len(PREFIX) :]:
            continue
        try:
            slot = decode_slot(bytes(store.get(key)), key=key, repository=document.id)
        except NotFound:
            continue
        except FormatError as error:
            problems.append(error.message)
            continue
        if slot is not None:
            found.append(slot)
    return sorted(found, key=lambda slot: slot.created), problems


def _listed(store: Store) -> list[str]:
    return [info.key for info in store.list(PREFIX)]


def unlock(store: Store, document: RepositoryDocument, locks: Sequence[Lock]) -> Opened:
    """Open the first slot that one of the locks fits. Raises KeyRefused."""
    keys = _listed(store)
    found, problems = slots(store, document, keys)
    tried: list[str] = []
    for lock in locks:
        mine = [slot for slot in found if slot.lock.get("kind") == lock.kind]
        tried.append(f"{lock.describe()} ({len(mine)} slot{'s' * (len(mine) != 1)} of its kind)")
        for slot in mine:
            try:
                key = lock.key(slot)
                payload = open_slot(slot, key) if key is not None else None
            except (CorruptObject, KeyRefused) as error:
                if error.message not in problems:
                    problems.append(error.message)
                continue
            if payload is not None:
                return _opened(store, document, slot, payload, keys)
    if not found and not problems:
        raise KeyRefused(
            f"{store.name} is encrypted, and has no key slot",
            remedy=f"restore the objects under {PREFIX} from a copy of the bucket",
        )
    if not locks:
        raise KeyRefused(
            f"{store.name} is encrypted, and no key was given",
            remedy="set FAILBACK_KEY_FILE, FAILBACK_PASSPHRASE_FILE or FAILBACK_KEY_COMMAND, or run it at a terminal",
        )
    said = "".join(f"; {problem}" for problem in problems)
    raise KeyRefused(
        f"no key slot of {store.name} opens with {' or '.join(tried)}{said}",
        remedy="check the passphrase or key file; the slot may have been removed: an administrator sees with"
        " `failback key list` and makes another with `failback key add`. When all keys are lost, the one on the"
        " recovery sheet, written into a file, is a key file",
    )


def _opened(store: Store, document: RepositoryDocument, slot: Slot, payload: Payload, keys: Sequence[str]) -> Opened:
    assert document.encryption is not None
    if (
        payload.document != _document_hash(document)
        or fingerprint(payload.ring.root) != document.encryption.fingerprint
    ):
        raise KeyRefused(
            f"repository.json of {store.name} is not the one this key was made for",
            remedy="somebody changed it: restore it from an older version or a copy of the bucket",
        )
    ring = payload.ring
    generations = dict(ring.generations)
    revoked: dict[bytes, frozenset[bytes]] = {}
    for key in keys:
        if not key.startswith((GENERATIONS, REVOKED)):
            continue
        found = _signed(store, key, ring.root)
        if key.startswith(REVOKED):
            revoked[bytes.fromhex(found["writer"])] = frozenset(bytes.fromhex(h) for h in found["believed"])
            continue
        number = int(found["generation"])
        if slot.name in found["boxes"]:
            generations[number] = open_generation(found["boxes"][slot.name], payload.box_private, number, key)
        elif number not in generations and slot.role in _EXPORTS:  # others read what they can
            raise KeyRefused(
                f"{slot.key} ({slot.label}) was not given generation {number} of the keys, and would write with keys "
                "that were given up: it was made while these were renewed, or had been removed then and was put back",
                remedy="an administrator removes it and makes another with `failback key add`",
            )
    return Opened(slot, replace(payload, ring=replace(ring, generations=generations)), revoked)


def _signed(store: Store, key: str, root: bytes) -> dict[str, Any]:
    document = read_document(bytes(store.get(key)), key)
    check_signature(document, root, key)
    return document


def rotate_data(store: Store, document: RepositoryDocument, ring: Ring, *, create: bool) -> int:
    """Begin a new generation of keys and hand it to all slots; returns its number.

    Points made from now on use nothing that the old generation sealed. Raises UsageError when another administrator
    was faster.
    """
    number = ring.generation + 1
    keys = Generation(os.urandom(32), os.urandom(32))
    found, problems = slots(store, document)
    if problems:
        raise CorruptObject(
            f"a key slot cannot be read, so its holder would be left behind: {problems[0]}",
            remedy="remove the slot or restore it, and try again",
        )
    boxes = {}
    for slot in found:
        check_signature(asdict(slot), ring.root, slot.key)
        boxes[slot.name] = seal_generation(slot.box, number, keys, with_data=slot.role != "janitor")
    record: dict[str, Any] = {
        "format": 1, "repository": document.id, "generation": number, "boxes": boxes,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip
    record["signature"] = sign(record, _root(ring))
    try:
        store.put(f"{GENERATIONS}{number:010d}", encode_document(record), create=create)
    except AlreadyExists:
        raise UsageError(
            f"generation {number} was begun by another administrator a moment ago",
            remedy="run the command again if one more is wanted",
        ) from None
    return number


def revoke(
    store: Store, document: RepositoryDocument, ring: Ring, slot: Slot, believed: Iterable[str], *, create: bool
) -> None:
    """Believe nothing that the slot's writer signs but the objects with these hashes (BLAKE3, hexadecimal)."""
    if slot.writer is None:
        return
    record: dict[str, Any] = {
        "format": 1, "repository": document.id, "writer": slot.writer, "slot": slot.name, "label": slot.label,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "believed": sorted(believed),
    }  # fmt: skip
    record["signature"] = sign(record, _root(ring))
    try:
        store.put(f"{REVOKED}{slot.writer}", encode_document(record), create=create)
    except AlreadyExists:
        return  # an earlier attempt to remove this slot


def remove_slot(store: Store, document: RepositoryDocument, slot: Slot) -> None:
    """Raises UsageError when no administrator would be left."""
    found, _problems = slots(store, document)
    if slot.role == "admin" and not any(s.role == "admin" and s.name != slot.name for s in found):
        raise UsageError(
            f"slot {slot.name} ({slot.label}) is the last administrator's: without one no key can be added again",
            remedy="add another administrator first: `failback key add --role admin`",
        )
    store.delete_many([slot.key])


def _document_hash(document: RepositoryDocument) -> str:
    return blake3(document.encode()).hexdigest()


def _root(ring: Ring) -> bytes:
    if ring.root_private is None:
        raise KeyRefused(
            "this key is not an administrator's", remedy="use an administrator's key: `failback key list` shows them"
        )
    return ring.root_private
