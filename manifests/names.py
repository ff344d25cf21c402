"""Machine names, points and object keys (FORMAT.md, section 1)."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple
from urllib.parse import unquote

from manifests.errors import UsageError

MAX_ENCODED = 200
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


def encode_machine(name: str) -> str:
    """The machine's name as one part of an object key. Raises UsageError for a name that can't be one."""
    text = unicodedata.normalize("NFC", name)
    if not text.strip():
        raise UsageError("the machine's name is empty", remedy="give a name, such as web-1")
    bad = sorted({c for c in text if c in "/@\\" or unicodedata.category(c) in ("Cc", "Cs")})
    if bad or text in (".", ".."):
        shown = " ".join(repr(c) for c in bad) or repr(text)
        raise UsageError(
            f"the machine's name {text[:80]!r} may not contain {shown}",
            remedy="use letters, digits, spaces, '-', '_' and '.'; letters of any language are fine",
        )
    encoded = "".join(
        chr(b) if b in _PLAIN and not (i == 0 and b == ord(".")) else f"%{b:02X}" for i, b in enumerate(text.encode())
    )
    if len(encoded) > MAX_ENCODED:
        raise UsageError(
            f"the machine's name {text[:40]!r}… is too long: {len(encoded)} characters encoded, {MAX_ENCODED} allowed",
            remedy="use a shorter name",
        )
    return encoded


def decode_machine(part: str) -> str:
    """The name that `encode_machine` turned into `part`."""
    return unquote(part, errors="strict")


class PointName(NamedTuple):
    """What a user names: a machine and one of its points (None: the latest)."""

    machine: str
    sequence: int | None


def parse_point(text: str) -> PointName:
    """Read `MACHINE`, `MACHINE@latest` or `MACHINE@17`."""
    machine, at, point = text.partition("@")
    encode_machine(machine)
    if not at or point == "latest":
        return PointName(machine, None)
    if not point.isascii() or not point.isdigit() or int(point) < 1 or len(point) > 10:
        raise UsageError(
            f"{point!r} is not a recovery point of {machine}",
            remedy="write MACHINE@NUMBER or MACHINE@latest; `failback list MACHINE` shows the numbers",
        )
    return PointName(machine, int(point))


def pack_key(object_id: bytes) -> str:
    digits = object_id.hex()
    return f"packs/{digits[:2]}/{digits}"


def page_key(object_id: bytes) -> str:
    """Key of a page, overlay segment, pack list or page directory."""
    digits = object_id.hex()
    return f"pages/{digits[:2]}/{digits}"


def sequence_part(sequence: int) -> str:
    return f"{sequence:010d}"


def manifest_key(machine: str, sequence: int) -> str:
    return f"manifests/{encode_machine(machine)}/{sequence_part(sequence)}"


def tombstone_key(machine: str, sequence: int) -> str:
    return f"tombstones/{encode_machine(machine)}/{sequence_part(sequence)}"


def sessions_prefix(machine: str) -> str:
    return f"sessions/{encode_machine(machine)}/"


def run_name(sequence: int, attempt: int) -> str:
    return f"{sequence_part(sequence)}-{attempt:04d}"


def session_prefix(machine: str, run: str) -> str:
    return f"{sessions_prefix(machine)}{run}/"


def journal_key(machine: str, run: str, number: int) -> str:
    return f"{session_prefix(machine, run)}journal/{number:08d}"
