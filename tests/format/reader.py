"""A second reader of the format, written from FORMAT.md alone: it imports nothing of failback."""

from __future__ import annotations

import json
import struct
from typing import Any

import zstandard
from blake3 import blake3

ENTRY_COLUMNS = (("pack", "I"), ("offset", "I"), ("length", "I"), ("slot", "H"), ("flags", "H"))


def envelope(data: bytes) -> dict[str, Any]:
    """Section 2."""
    salt, magic, kind, version, flags, zero, generation, repository, reserved = struct.unpack(
        "<32s8sBBBBI16s64s", data[:128]
    )
    assert magic == b"failback"
    assert (version, flags, zero, generation, reserved) == (1, 0, 0, 0, bytes(64))
    return {"salt": salt, "type": kind, "repository": repository}


def body(data: bytes) -> bytes:
    """The plain bytes of a sealed body."""
    codec, zeros, length = struct.unpack("<B7sQ", data[:16])
    assert zeros == bytes(7)
    assert length <= 64 << 20
    plain = data[16:] if codec == 0 else frame(data[16:], length)
    assert codec in (0, 1)
    assert len(plain) == length
    return plain


def frame(data: bytes, length: int) -> bytes:
    assert zstandard.frame_content_size(data) == length > 0
    return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)


def by_id(data: bytes) -> tuple[bytes, int, bytes]:
    """(id, type, plain) of an object named by id."""
    return blake3(data).digest(), envelope(data)["type"], body(data[128:])


def by_place(data: bytes, key: str) -> tuple[int, bytes]:
    """(type, plain) of the object named by its place `key`."""
    assert blake3(data[:-32] + key.encode("ascii")).digest() == data[-32:]
    return envelope(data)["type"], body(data[128:-32])


def record(data: bytes, key: str) -> tuple[int, dict[str, Any]]:
    kind, plain = by_place(data, key)
    document = json.loads(plain)
    assert plain == json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return kind, document


def repository(data: bytes) -> dict[str, Any]:
    """Section 9."""
    document = json.loads(data)
    assert data == json.dumps(document, indent=1, sort_keys=True).encode("ascii") + b"\n"
    checksum = document.pop("checksum")
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii")
    assert blake3(canonical).hexdigest() == checksum
    return document


def entries(plain: bytes, *, positions: bool, journal: bool = False) -> dict[str, Any]:
    """Section 5: a page, or with positions an overlay segment; section 11: a journal."""
    n, m, disk, zero, first = struct.unpack_from("<IIIIQ", plain)
    assert zero == 0
    at = 24

    def ids(count: int) -> list[bytes]:
        nonlocal at
        found = [plain[at + 32 * i : at + 32 * (i + 1)] for i in range(count)]
        at += 32 * count
        return found

    def column(code: str) -> list[int]:
        nonlocal at
        found = struct.unpack_from(f"<{n}{code}", plain, at)
        at += struct.calcsize(f"<{n}{code}")
        return list(found)

    packs = ids(m)
    where = column("Q") if positions else list(range(first, first + n))
    chunk_ids = ids(n)
    columns = {name: column(code) for name, code in ENTRY_COLUMNS}
    lengths = struct.unpack_from(f"<{m}I", plain, at) if journal else ()
    at += 4 * len(lengths)
    assert at == len(plain)
    assert packs == sorted(set(packs))
    rows = [
        {
            "position": where[i],
            "id": chunk_ids[i],
            "pack": packs[columns["pack"][i]] if any(chunk_ids[i]) else None,
            **{name: columns[name][i] for name, _ in ENTRY_COLUMNS[1:]},
        }
        for i in range(n)
    ]
    return {"disk": disk, "first": first, "rows": rows, "stored": dict(zip(packs, lengths, strict=journal))}


def pack_list(plain: bytes) -> list[tuple[bytes, int, int]]:
    """Section 7: (pack, stored length, live bytes)."""
    n, zero = struct.unpack_from("<II", plain)
    assert zero == 0
    assert len(plain) == 8 + 44 * n
    stored = struct.unpack_from(f"<{n}I", plain, 8 + 32 * n)
    live = struct.unpack_from(f"<{n}q", plain, 8 + 36 * n)
    return [(plain[8 + 32 * i : 40 + 32 * i], stored[i], live[i]) for i in range(n)]


def page_directory(plain: bytes) -> tuple[int, list[bytes]]:
    """Section 6."""
    positions, k, zero = struct.unpack_from("<QII", plain)
    assert zero == 0
    assert k == (positions + 4095) // 4096
    assert len(plain) == 16 + 32 * k
    return positions, [plain[16 + 32 * i : 48 + 32 * i] for i in range(k)]


def segment_table(plain: bytes) -> list[tuple[bytes, int, int, int]]:
    """Section 6: (segment, first and last position, entries)."""
    k, zero = struct.unpack_from("<II", plain)
    assert zero == 0
    assert len(plain) == 8 + 52 * k
    columns = [struct.unpack_from(f"<{k}{c}", plain, 8 + at * k) for c, at in (("Q", 32), ("Q", 40), ("I", 48))]
    return [(plain[8 + 32 * i : 40 + 32 * i], *(column[i] for column in columns)) for i in range(k)]


def pack(data: bytes) -> dict[str, Any]:
    """Section 4: the whole of a pack, chunks decompressed."""
    at, length, n, chunk_size, zeros, magic = struct.unpack("<IIII8s8s", data[-32:])
    assert (zeros, magic) == (bytes(8), b"kcabliaf")
    assert at + length + 32 == len(data)
    table = body(data[at : at + length])
    lineage, count, size = struct.unpack_from("<16sII", table)
    assert (count, size) == (n, chunk_size)
    ids = [table[24 + 32 * i : 56 + 32 * i] for i in range(n)]
    positions = struct.unpack_from(f"<{n}Q", table, 24 + 32 * n)
    offsets = struct.unpack_from(f"<{n}I", table, 24 + 40 * n)
    lengths = struct.unpack_from(f"<{n}I", table, 24 + 44 * n)
    flags = struct.unpack_from(f"<{n}H", table, 24 + 48 * n)
    assert len(table) == 24 + 50 * n
    chunks = []
    end = 128
    for i in range(n):
        assert offsets[i] == end
        end += lengths[i]
        sealed = data[offsets[i] : end]
        plain = sealed if flags[i] & 1 else frame(sealed, chunk_size)
        assert blake3(plain).digest() == ids[i]
        chunks.append(plain)
    assert end == at
    kind = envelope(data)["type"]
    return {"type": kind, "lineage": lineage, "chunk_size": chunk_size, "positions": positions, "chunks": chunks}


def machine_name(part: str) -> str:
    """Section 1: the name that a part of a key stands for."""
    out = bytearray()
    rest = iter(part)
    for c in rest:
        if c == "~":
            out += next(rest).upper().encode()
        elif c == "%":
            out.append(int(next(rest) + next(rest), 16))
        else:
            out += c.encode()
    return out.decode()


def digest(ids: list[bytes], size: int, chunk_size: int) -> bytes:
    """Section 8, as a recursion from the top."""
    level = 2
    while 64**level < len(ids):
        level += 1

    def build(first: int, level: int) -> bytes:
        if level == 0:
            return ids[first]
        below = 64 ** (level - 1)
        children = range(first, min(first + 64 * below, len(ids)), below)
        return blake3(b"".join(build(child, level - 1) for child in children)).digest()

    root = build(0, level) if ids else bytes(32)
    context = "failback 2026 disk digest v1"
    return blake3(root + struct.pack("<QI", size, chunk_size), derive_key_context=context).digest()
