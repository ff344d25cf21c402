"""What opens a key slot: a passphrase, a key file, or a command that asks a key management service."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from blake3 import blake3

from manifests.slot import Slot
from pipeline.errors import CorruptObject, KeyRefused, UsageError

MEMORY_KIB, ITERATIONS, LANES = 64 << 10, 3, 4
"""argon2id: the second recommended option of RFC 9106, section 4."""
LEAST_MEMORY_KIB, MOST_MEMORY_KIB = 19 << 10, 1 << 20
"""A slot that asks for less was weakened by somebody, one that asks for more would take this host down. The least is
that of the OWASP Password Storage Cheat Sheet (19 MiB, 2 iterations)."""
LEAST_ITERATIONS, MOST_ITERATIONS, MOST_LANES = 2, 16, 16
LEAST_PASSPHRASE = 12
"""Characters of a new passphrase."""
COMMAND_SECONDS = 60
_FILE_LINE = "failback-key-1 "
_FILE_KEY = "failback 2026 key file v1"
_FILE_CHECK = "failback 2026 key file check v1"


class NewLock(Protocol):
    """What a new slot can be made for."""

    def describe(self) -> str:
        """For messages: where it comes from; never the secret."""
        ...

    def new(self, repository: str) -> tuple[dict[str, Any], bytes]:
        """(what a new slot says of its lock, the key it is sealed with)."""
        ...


class Lock(NewLock, Protocol):
    """One way to open slots."""

    @property
    def kind(self) -> str:
        """Of the slots that it may open."""
        ...

    def key(self, slot: Slot) -> bytes | None:
        """The key that may open the slot, or None when it surely does not."""
        ...


@dataclass(frozen=True, slots=True)
class Passphrase:
    """Anything that people remember or a secret store hands out."""

    ask: Callable[[], str]
    source: str
    kind: str = "passphrase"

    def describe(self) -> str:
        return f"the passphrase {self.source}"

    def new(self, repository: str) -> tuple[dict[str, Any], bytes]:
        text = self.ask()
        if len(text) < LEAST_PASSPHRASE:
            raise UsageError(
                f"the passphrase has {len(text)} characters; a new one needs at least {LEAST_PASSPHRASE}",
                remedy="take some words that nobody else would put together, or a key file",
            )
        salt = secrets.token_bytes(16)
        lock = {
            "kind": self.kind, "kdf": "argon2id", "memory_kib": MEMORY_KIB, "iterations": ITERATIONS, "lanes": LANES,
            "salt": salt.hex(),
        }  # fmt: skip
        return lock, _argon2id(text, lock, "the new slot")

    def key(self, slot: Slot) -> bytes | None:
        return _argon2id(self.ask(), slot.lock, slot.key)


def _argon2id(text: str, lock: dict[str, Any], name: str) -> bytes:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    try:
        memory, iterations, lanes = (lock[field] for field in ("memory_kib", "iterations", "lanes"))
        salt = bytes.fromhex(lock["salt"])
        sound = lock["kdf"] == "argon2id" and all(type(n) is int for n in (memory, iterations, lanes))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptObject(f"{name} does not say how its passphrase is used") from error
    if (
        not sound
        or not LEAST_MEMORY_KIB <= memory <= MOST_MEMORY_KIB
        or not LEAST_ITERATIONS <= iterations <= MOST_ITERATIONS
        or not 1 <= lanes <= MOST_LANES
        or not 16 <= len(salt) <= 64
    ):
        raise CorruptObject(
            f"{name} asks for an unreasonable use of its passphrase ({lock.get('memory_kib')} KiB, "
            f"{lock.get('iterations')} iterations, {lock.get('lanes')} lanes)",
            remedy="somebody changed it, or it is damaged: use another key slot",
        )
    return Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory).derive(
        text.encode("utf-8", "surrogateescape")
    )


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file with 32 random bytes as text."""

    path: Path
    kind: str = "file"

    def describe(self) -> str:
        return f"the key file {self.path}"

    def new(self, repository: str) -> tuple[dict[str, Any], bytes]:
        return file_lock(self._read() if self.path.exists() else self._create())

    def key(self, slot: Slot) -> bytes | None:
        key = self._read()
        return _file_key(key, slot.lock, slot.key) if slot.lock.get("check") == _check(key) else None

    def _create(self) -> bytes:
        key = secrets.token_bytes(32)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w") as file:
                file.write(f"{key_line(key)}\n")
                file.flush()
                os.fsync(fd)
        except OSError as error:
            raise UsageError(
                f"cannot make the key file {self.path}: {error.strerror}", remedy="name another place"
            ) from error
        return key

    def _read(self) -> bytes:
        try:
            text = self.path.read_text(encoding="ascii")
        except FileNotFoundError:
            raise KeyRefused(
                f"the key file {self.path} is not there",
                remedy="bring it back from where it is kept, or open the repository with another key slot",
            ) from None
        except OSError as error:
            raise KeyRefused(
                f"cannot read the key file {self.path}: {error.strerror}", remedy="check the file"
            ) from error
        except UnicodeDecodeError as error:
            raise KeyRefused(
                f"{self.path} is no key file: it is not text", remedy="name the file that failback made"
            ) from error
        return parse_key_text(text, str(self.path))


def parse_key_text(text: str, name: str) -> bytes:
    """The 32 bytes of a key file's text. Raises KeyRefused."""
    line = text.strip()
    try:
        key = bytes.fromhex(line.removeprefix(_FILE_LINE)) if line.startswith(_FILE_LINE) else b""
    except ValueError:
        key = b""
    if len(key) != 32:
        raise KeyRefused(
            f"{name} is not a key file of failback", remedy=f"it has one line: {_FILE_LINE}and 64 hexadecimal digits"
        )
    return key


def key_line(key: bytes) -> str:
    """The one line of a key file."""
    return f"{_FILE_LINE}{key.hex()}"


def file_lock(key: bytes) -> tuple[dict[str, Any], bytes]:
    """(what a new slot says of its lock, the key it is sealed with), for the 32 bytes of a key file."""
    lock = {"kind": "file", "check": _check(key), "salt": secrets.token_hex(16)}
    return lock, _file_key(key, lock, "the new slot")


def _check(key: bytes) -> str:
    return blake3(key, derive_key_context=_FILE_CHECK).hexdigest(8)


def _file_key(key: bytes, lock: dict[str, Any], name: str) -> bytes:
    try:
        return blake3(key + bytes.fromhex(lock["salt"]), derive_key_context=_FILE_KEY).digest()
    except (KeyError, ValueError, TypeError) as error:
        raise CorruptObject(f"{name} does not say how its key file is used") from error


@dataclass(frozen=True, slots=True)
class Command:
    """A program that wraps and unwraps 32 bytes with a key it alone has: the way to any key management service.

    `COMMAND wrap` reads 32 bytes in base64 and a line feed from its standard input, prints one line of at most 16 KiB;
    `COMMAND unwrap` reads that line, and prints the 32 bytes in base64. `FAILBACK_REPOSITORY_ID` is in its environment.
    """

    command: str
    kind: str = "command"

    def describe(self) -> str:
        return f"the key command {self.command!r}"

    def new(self, repository: str) -> tuple[dict[str, Any], bytes]:
        key = secrets.token_bytes(32)
        wrapped = self._run("wrap", base64.b64encode(key).decode(), repository)
        if not wrapped or len(wrapped) > 16 << 10:
            raise KeyRefused(f"{self.describe()} printed {len(wrapped)} characters for `wrap`", remedy="mend it")
        lock = {"kind": self.kind, "wrapped": wrapped}
        if self._unwrap(wrapped, repository) != key:
            raise KeyRefused(f"{self.describe()} does not unwrap what it wrapped", remedy="mend it")
        return lock, key

    def key(self, slot: Slot) -> bytes | None:
        wrapped = slot.lock.get("wrapped")
        if not isinstance(wrapped, str) or "\n" in wrapped:
            raise CorruptObject(f"{slot.key} does not say what its command has to unwrap")
        return self._unwrap(wrapped, slot.repository)

    def _unwrap(self, wrapped: str, repository: str) -> bytes:
        try:
            key = base64.b64decode(self._run("unwrap", wrapped, repository), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != 32:
            raise KeyRefused(f"{self.describe()} did not print 32 bytes in base64 for `unwrap`", remedy="mend it")
        return key

    def _run(self, verb: str, text: str, repository: str) -> str:
        try:
            done = subprocess.run(
                [*shlex.split(self.command), verb],
                input=f"{text}\n",
                capture_output=True,
                text=True,
                errors="replace",
                timeout=COMMAND_SECONDS,
                env={**os.environ, "FAILBACK_REPOSITORY_ID": repository},
                check=False,
            )
        except (OSError, ValueError) as error:
            raise KeyRefused(f"{self.describe()} does not run: {error}", remedy="correct key_command") from error
        except subprocess.TimeoutExpired:
            raise KeyRefused(
                f"{self.describe()} took more than {COMMAND_SECONDS} s", remedy="check the service it asks"
            ) from None
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["nothing"])[-1][:300]
            raise KeyRefused(f"{self.describe()} ended with {done.returncode}: {said}", remedy="check what it asks")
        return done.stdout.strip()
