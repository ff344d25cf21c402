"""The repository document (FORMAT.md, section 9)."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from blake3 import blake3

from manifests.errors import CorruptObject, NewerFormat, UsageError

KEY = "repository.json"
DEFAULT_CHUNK_SIZE = 64 << 10
MAX_CHUNK_SIZE = 1 << 20
_ID = re.compile("[0-9a-f]{32}")


def check_chunk_size(size: int) -> int:
    """`size` in bytes if it is a power of two from 64 KiB to 1 MiB, else UsageError."""
    if not DEFAULT_CHUNK_SIZE <= size <= MAX_CHUNK_SIZE or size & (size - 1):
        raise UsageError(f"a chunk size of {size} bytes is not possible", remedy="use 64, 128, 256, 512 or 1024 KiB")
    return size


@dataclass(frozen=True, slots=True)
class Encryption:
    """What anyone may know of a repository's keys."""

    fingerprint: str
    """32 hexadecimal digits: of the ring's root key. People compare it, clients pin it."""
    cipher: str = "aes-256-gcm"

    def __post_init__(self) -> None:
        if self.cipher != "aes-256-gcm" or not isinstance(self.fingerprint, str) or not _ID.fullmatch(self.fingerprint):
            raise TypeError(f"cipher {self.cipher!r}, fingerprint {self.fingerprint!r}")


@dataclass(frozen=True, slots=True)
class RepositoryDocument:
    """What every object of the repository has in common. Written once."""

    id: str
    created: str
    chunk_size: int
    abilities: dict[str, Any]
    encryption: Encryption | None = None
    format: int = 1

    @property
    def id_bytes(self) -> bytes:
        return bytes.fromhex(self.id)

    @classmethod
    def new(cls, *, chunk_size: int, abilities: dict[str, Any]) -> RepositoryDocument:
        """Not encrypted; `replace` its `encryption` when its ring is made."""
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(secrets.token_hex(16), created, check_chunk_size(chunk_size), abilities)

    def encode(self) -> bytes:
        document = asdict(self)
        document["checksum"] = blake3(_canonical(document)).hexdigest()
        return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> RepositoryDocument:
        """Raises CorruptObject or NewerFormat."""
        try:
            document = json.loads(data)
            version = document["format"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptObject(f"{KEY} is damaged: {error}", remedy="restore it from a copy of the bucket") from error
        if version != 1:
            raise NewerFormat(f"the repository has format {version}", remedy="upgrade failback on this host")
        checksum = document.pop("checksum", None)
        if checksum != blake3(_canonical(document)).hexdigest():
            raise CorruptObject(
                f"{KEY} is damaged: its checksum does not match", remedy="restore it from a copy of the bucket"
            )
        try:
            if document.get("encryption") is not None:
                document["encryption"] = Encryption(**document["encryption"])
            found = cls(**document)
        except TypeError as error:
            raise NewerFormat(
                f"{KEY} has fields this version does not know: {error}", remedy="upgrade failback on this host"
            ) from error
        try:
            sound = found._sound() and found.encode() == data
        except RecursionError:
            sound = False  # nested so deeply that it can be read and not be written
        if not sound:
            raise CorruptObject(f"{KEY} is damaged", remedy="restore it from a copy of the bucket")
        return found

    def _sound(self) -> bool:
        texts = isinstance(self.id, str) and isinstance(self.created, str)
        sizes = type(self.chunk_size) is int and type(self.format) is int and isinstance(self.abilities, dict)
        if not (texts and sizes and _ID.fullmatch(self.id)):
            return False
        try:
            check_chunk_size(self.chunk_size)
        except UsageError:
            return False
        return True


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
