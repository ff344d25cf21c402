"""Builds the golden vectors. They are kept, not made anew: run `python -m tests.format.make_vectors` for new ones only.

A vector is never changed while the version of its type stays what it is; the script refuses to.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import zstandard
from blake3 import blake3

from manifests.directory import PageDirectory
from manifests.entry import FLAG_STORED, FLAG_UNREADABLE, PackTable, Rows, empty_rows
from manifests.envelope import Kind, seal_by_id, seal_by_place
from manifests.machine import Machine, Nic
from manifests.manifest import Disk, Index, Manifest, Parent, Segment, Tier, encode_record
from manifests.pack import PackBuilder
from manifests.packlist import PackUse, encode_pack_list
from manifests.page import encode_journal, encode_page, encode_segment
from manifests.repository import RepositoryDocument
from manifests.sealing import Sealing
from manifests.segment_table import encode_segment_table

VECTORS = Path(__file__).parent / "vectors"
REPOSITORY = bytes(range(16))
SEALING = Sealing(REPOSITORY)
SALT = bytes(range(0x80, 0xA0))
LINEAGE = bytes(range(0x20, 0x30))
CHUNK = 64 << 10
DOCUMENT = RepositoryDocument(
    id=REPOSITORY.hex(),
    created="2026-01-02T03:04:05Z",
    chunk_size=CHUNK,
    abilities={"conditional_put": True, "clock_skew": 0.5, "notes": ["Zürich"]},
)
SQUEEZED = b"failback" * (CHUNK // 8)
"""A chunk that shrinks."""
RANDOM = blake3(b"incompressible").digest(CHUNK)
"""A chunk that does not."""
RECORDS: dict[str, tuple[Kind, dict[str, object]]] = {
    "void": (Kind.VOID, {"by": "ops@hub", "reason": "fenced", "time": "2026-01-02T03:04:05Z"}),
    "tombstone": (
        Kind.TOMBSTONE,
        {"by": "ops@hub", "manifest": "ab" * 32, "reason": "täglich", "time": "2026-01-02T03:04:05Z"},
    ),
    "session": (
        Kind.SESSION,
        {
            "host": "hub", "boot_id": "0b7c", "pid": 4711, "pid_start": 815, "pid_namespace": "pid:[4026531836]",
    "started": "2026-01-02T03:04:05Z",
            "sequence": 7, "attempt": 1, "parent": {"sequence": 6, "manifest": "cd" * 32},
            "bases": [{"point": "base@1", "manifest": "ef" * 32}], "resumes": ["0000000007-0000"],
            "tool": "failback 0.1", "disks": [
                {"number": 0, "lineage": LINEAGE.hex(), "chunk_size": CHUNK, "size": CHUNK, "name": "/a",
                 "identity": ""},
            ],
        },
    ),
    "heartbeat": (Kind.HEARTBEAT, {"beat": 3}),
    "session_end": (Kind.SESSION_END, {"outcome": "committed"}),
    "record": (Kind.RECORD, {"by": "ops@hub", "reason": "on disks", "sequence": 7, "time": "2026-01-02T03:04:05Z"}),
}  # fmt: skip


_SESSION = "sessions/~web%20%C3%BC/0000000007-0001/"
KEYS = {
    "manifest": "manifests/~web%20%C3%BC/0000000007",
    "void": "manifests/~web%20%C3%BC/0000000008",
    "tombstone": "tombstones/~web%20%C3%BC/0000000006",
    "session": f"{_SESSION}session",
    "heartbeat": f"{_SESSION}heartbeat",
    "journal": f"{_SESSION}journal/00000000",
    "session_end": f"{_SESSION}ended",
    "record": "holds/~web%20%C3%BC/qemu-0123456789ab",
}
"""Where the objects named by place lie."""


def made_id(number: int) -> bytes:
    """An id that stands for something."""
    return blake3(b"%d" % number).digest()


PACK_LENGTHS = {0: 80_000, 1: 0x00B00000}
"""Stored lengths of the packs of `entries`, by number."""
SEGMENTS = (
    Segment(id=made_id(300).hex(), first=0, last=0, count=1),
    Segment(id=made_id(301).hex(), first=1, last=20_000, count=16_384),
    Segment(id=made_id(302).hex(), first=1 << 40, last=(1 << 63) - 1, count=2),
)


@contextmanager
def fixed_salt() -> Iterator[None]:
    with patch("manifests.envelope.fresh_salt", lambda contents: SALT):
        yield


def entries() -> tuple[Rows, PackTable]:
    """Five entries: two of one pack, a hole, one of another pack that is unreadable, an unreadable hole."""
    packs = PackTable([made_id(100), made_id(101)])
    rows = empty_rows(5)
    for i, (pack, offset, length, slot, flags) in {
        0: (0, 128, 5000, 0, 0),
        1: (0, 5128, CHUNK, 1, FLAG_STORED),
        3: (1, 0x00ABCDEF, 0x1234, 0x0FFE, FLAG_UNREADABLE),
    }.items():
        rows[i] = (np.frombuffer(made_id(i), "<u8"), pack, offset, length, slot, flags)
    rows[4]["flags"] = FLAG_UNREADABLE
    return rows, packs


def positions() -> np.ndarray:
    return np.array([3, 4, 4096, 1 << 33, (1 << 63) - 1], "<u8")


def directory() -> PageDirectory:
    found = PageDirectory(2 * 4096 + 5)
    found[0], found[2] = made_id(200), made_id(201)
    return found


def uses() -> dict[bytes, PackUse]:
    return {made_id(101): PackUse(8 << 20, -70000), made_id(100): PackUse(4096, 1 << 40)}


def manifest() -> Manifest:
    h = made_id
    disk = Disk(
        number=0, lineage=LINEAGE.hex(), name="/dev/vg/dätä", size=5 * CHUNK - 512, sector_size=4096, chunk_size=CHUNK,
        bus="virtio", boot=True, serial="S1", source_format="device", digest=h(1).hex(),
        index=Index(
            pages=h(2).hex(),
            tiers=(Tier(segments=(Segment(id=h(3).hex(), first=1, last=2, count=2),
                                  Segment(id=h(4).hex(), first=4, last=4, count=1))),
                   Tier(table=h(8).hex(), count=1 << 20)),
        ),
        packs=(h(5).hex(), h(6).hex(), h(9).hex()), base_lists=2, unreadable=((512, 1024),), change_maps=("bitmap-7",),
        stored_bytes=1, live_bytes=2, data_bytes=3,
    )  # fmt: skip
    machine = Machine(
        name="Web ü", firmware="uefi", secure_boot=True, cpus=2, memory_bytes=1 << 31, platform="qemu",
        nics=(Nic(mac="52:54:00:00:00:01", network="lan", model="virtio", addresses=("192.0.2.1/24",)),),
        raw={"x": [1, None, 1.5]},
    )  # fmt: skip
    return Manifest(
        machine=machine, sequence=7, parent=Parent(sequence=6, manifest=h(7).hex()), bases=("base@1",),
        started="2026-01-02T03:04:05Z", time="2026-01-02T03:05:05Z", tool="failback 0.1", run="0000000007-0001",
        consistency="crash", final=True, set=None, disks=(disk,),
    )  # fmt: skip


def pack() -> bytes:
    builder = PackBuilder(LINEAGE, CHUNK, SEALING)
    builder.add(9, blake3(SQUEEZED).digest(), zstandard.ZstdCompressor(level=1).compress(SQUEEZED), 0)
    builder.add(1 << 40, blake3(RANDOM).digest(), RANDOM, FLAG_STORED)
    return builder.seal()[1]


def plains() -> dict[str, bytes]:
    """Plain forms, whose bytes do not depend on the version of zstd."""
    rows, packs = entries()
    return {
        "page": encode_page(8192, rows, packs),
        "segment": encode_segment(positions(), rows, packs),
        "journal": encode_journal(3, positions(), rows, packs, PACK_LENGTHS),
        "segmenttable": encode_segment_table(SEGMENTS),
        "packlist": encode_pack_list(uses()),
        "directory": directory().encode(),
    }


def stored() -> dict[str, bytes]:
    """Stored objects."""
    forms = plains()
    kinds = {
        "page": Kind.PAGE, "segment": Kind.SEGMENT, "packlist": Kind.PACK_LIST, "directory": Kind.PAGE_DIRECTORY,
        "segmenttable": Kind.SEGMENT_TABLE,
    }  # fmt: skip
    with fixed_salt():
        return {
            "repository.json": DOCUMENT.encode(),
            "pack.bin": pack(),
            **{f"{n}.bin": seal_by_id(k, forms[n], sealing=SEALING)[1] for n, k in kinds.items()},
            "journal.bin": seal_by_place(Kind.JOURNAL, forms["journal"], sealing=SEALING, key=KEYS["journal"]),
            "manifest.bin": manifest().encode(SEALING),
            **{f"{n}.bin": encode_record(k, d, sealing=SEALING, key=KEYS[n]) for n, (k, d) in RECORDS.items()},
        }


def main() -> None:
    VECTORS.mkdir(exist_ok=True)
    for name, data in {**{f"{n}.plain": d for n, d in plains().items()}, **stored()}.items():
        path = VECTORS / name
        if path.exists() and "--replace-unreleased" not in sys.argv:
            print(f"{name} exists and is kept")
            continue
        path.write_bytes(data)


if __name__ == "__main__":
    main()
