"""Commit: a recovery point exists from the moment its manifest's key does (FORMAT.md, section 8)."""

from __future__ import annotations

from blake3 import blake3

from manifests.manifest import Manifest
from manifests.names import manifest_key
from manifests.slot import REVOKED
from pipeline.errors import AlreadyExists, KeyRefused, NotFound, SessionFenced
from pipeline.repository import Repository


def commit(repository: Repository, manifest: Manifest, *, generation: int | None = None) -> None:
    """Create the manifest's key. Raises SessionFenced when somebody else's record is there, KeyRefused when this
    writer's key was removed meanwhile.

    `generation`: of the keys that all it refers to is sealed with, when these are not the newest.
    """
    key = manifest_key(manifest.machine.name, manifest.sequence)
    sealing = repository.sealing
    data = manifest.encode(sealing if generation is None else sealing.at(generation))
    _check_believed(repository, manifest.label)
    try:
        if not repository.conditional_put and repository.store.head(key) is not None:
            raise AlreadyExists(key)
        repository.store.put(key, data, create=repository.conditional_put)
        if repository.conditional_put:
            _remember(repository, manifest, data)
            return
    except AlreadyExists:
        pass
    try:
        there = bytes(repository.store.get(key))
    except NotFound:
        there = b""
    if there != data:
        raise SessionFenced(
            f"{manifest.label} was taken by another writer or fenced while this export ran",
            remedy="nothing was committed; run the same command again",
        )
    _remember(repository, manifest, data)


def _check_believed(repository: Repository, label: str) -> None:
    """An export takes hours: its key may have been removed since it began."""
    writer = repository.sealing.ring.writer if repository.sealing.ring else None
    if writer is not None and repository.store.head(f"{REVOKED}{writer.certificate.public.hex()}") is not None:
        raise KeyRefused(
            f"the key that {label} is signed with was removed while it was written: nobody would believe it",
            remedy="nothing was committed; an administrator makes another key with `failback key add`",
        )


def _remember(repository: Repository, manifest: Manifest, data: bytes) -> None:
    """Whoever writes another point over it is found out by this host."""
    if repository.seen is not None:
        name, digest = manifest.machine.name, blake3(data).hexdigest()
        repository.seen.note_point(name, manifest.sequence, digest)
