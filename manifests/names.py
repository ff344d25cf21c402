"""Machine names, points and object keys (FORMAT.md, section 1)."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple
from urllib.parse import unquote

from manifests.errors import CorruptObject, UsageError

MAX_ENCODED = 240
MAX_SEQUENCE = 9_999_999_999
NAMED_BY_CONTENT = ("packs", "pages")
"""Folders whose objects are named by the hash of their bytes."""
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")
_CAPITAL = re.compile("~([a-z])")


def encode_machine(name: str) -> str:
    """The machine's name as one part of an object key. Raises UsageError for a name that can't be one.

    No two names have keys that differ only in case or in dots at the end: some file shares do not tell these apart.
    """
    text = unicodedata.normalize("NFC", name)
    if not text.strip():
        raise UsageError("the machine's name is empty", remedy="give a name, such as web-1")
    bad = sorted({c for c in text if c in "/@\\" or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")})
    if bad or text in (".", ".."):
        shown = " ".join(repr(c) for c in bad) or repr(text)
        raise UsageError(
            f"the machine's name {text[:80]!r} may not contain {shown}",
            remedy="use letters, digits, spaces, '-', '_' and '.'; letters of any language are fine",
        )
    data = text.encode()
    encoded = "".join(_encode_byte(b, edge=i in (0, len(data) - 1)) for i, b in enumerate(data))
    if len(encoded) > MAX_ENCODED:
        raise UsageError(
            f"the machine's name {text[:40]!r}… is too long: {len(encoded)} characters encoded, {MAX_ENCODED} allowed",
            remedy="use a shorter name",
        )
    return encoded


def _encode_byte(byte: int, *, edge: bool) -> str:
    if byte in _PLAIN and not (edge and byte == ord(".")):
        return chr(byte)
    return f"~{chr(byte).lower()}" if chr(byte).isascii() and chr(byte).isupper() else f"%{byte:02X}"


def decode_machine(part: str) -> str:
    """The name that `encode_machine` turned into `part`; CorruptObject when there is none."""
    try:
        name = unquote(_CAPITAL.sub(lambda match: match[1].upper(), part), errors="strict")
        if encode_machine(name) == part:
            return name
    except (UnicodeDecodeError, UsageError):
        pass
    raise CorruptObject(f"{part!r} does not encode a machine's name", remedy="remove it, if you know who put it there")


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
    if not point.isascii() or not point.isdigit() or len(point) > 10 or int(point) < 1:
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
    """`sequence` in ten digits, so that keys sort by it; ValueError when it does not fit."""
    if not 1 <= sequence <= MAX_SEQUENCE:
        raise ValueError(f"a sequence of {sequence} has no key")
    return f"{sequence:010d}"


def manifest_key(machine: str, sequence: int) -> str:
    return f"manifests/{encode_machine(machine)}/{sequence_part(sequence)}"


def tombstone_key(machine: str, sequence: int) -> str:
    return f"tombstones/{encode_machine(machine)}/{sequence_part(sequence)}"


def sessions_prefix(machine: str) -> str:
    return f"sessions/{encode_machine(machine)}/"


def run_name(sequence: int, attempt: int) -> str:
    if not 0 <= attempt <= 9999:
        raise ValueError(f"attempt {attempt} has no key")
    return f"{sequence_part(sequence)}-{attempt:04d}"


def session_prefix(machine: str, run: str) -> str:
    return f"{sessions_prefix(machine)}{run}/"


def journal_key(machine: str, run: str, number: int) -> str:
    return f"{session_prefix(machine, run)}journal/{number:08d}"


PLANS_PREFIX = "plans/"


def plan_prefix(plan: str) -> str:
    """`plan` has a-z, 0-9 and '-' only, as a plan's model sees to."""
    return f"{PLANS_PREFIX}{plan}/"


def plan_key(plan: str, version: int) -> str:
    return f"{plan_prefix(plan)}{sequence_part(version)}"


def relocations_prefix(pack: bytes) -> str:
    digits = pack.hex()
    return f"relocations/{digits[:2]}/{digits}/"


def relocation_key(pack: bytes, number: int) -> str:
    return f"{relocations_prefix(pack)}{number:08d}"


DAMAGE_PREFIX = "scrub/damage/"


def damage_key(object_id: bytes) -> str:
    """Key of the damage record of a pack or page object."""
    return f"{DAMAGE_PREFIX}{object_id.hex()}"


def scrub_runs_prefix(kind: str) -> str:
    return f"scrub/runs/{kind}/"


def scrub_run_key(kind: str, sequence: int) -> str:
    return f"{scrub_runs_prefix(kind)}{sequence_part(sequence)}"


_RUN = re.compile("[a-z0-9](?:[a-z0-9-]{0,78}[a-z0-9])?")


def is_run_name(name: str) -> bool:
    """Whether a run of a plan can have this name."""
    return _RUN.fullmatch(name) is not None


def run_prefix(run: str) -> str:
    """Raises UsageError for what is no name of a run."""
    if not is_run_name(run):
        raise UsageError(f"{run[:80]!r} is no name of a run", remedy="`failback run list` shows them")
    return f"runs/{run}/"


def run_journal_prefix(run: str) -> str:
    return f"{run_prefix(run)}journal/"


def run_entry_key(run: str, number: int) -> str:
    return f"{run_journal_prefix(run)}{sequence_part(number)}"


def leases_prefix(machine: str) -> str:
    return f"leases/{encode_machine(machine)}/"


def lease_key(machine: str, epoch: int) -> str:
    return f"{leases_prefix(machine)}{sequence_part(epoch)}"


def set_key(run: str, group: int) -> str:
    """Of the points of one group (by its place in the plan) that one run took at one barrier."""
    run_prefix(run)
    return f"sets/{run}/{group:04d}"
