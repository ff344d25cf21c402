"""Builds the golden repository that is encrypted: `vectors/sealed/`, with keys and salts that are known.

It is kept, not made anew: `python -m tests.format.make_sealed` writes only what is missing.
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

sys.path.insert(0, str(Path(__file__).parents[1]))
from rings import known_ring

from manifests.certificate import SIGNED_SIZE
from manifests.directory import PageDirectory
from manifests.entry import FLAG_STORED, PackTable, empty_rows, ids_of
from manifests.envelope import Kind, seal_by_id
from manifests.manifest import Index, Segment, Tier
from manifests.names import manifest_key, pack_key, page_key
from manifests.pack import FOOTER_SIZE, PackBuilder, read_table
from manifests.packlist import PackUse, encode_pack_list
from manifests.page import encode_page, encode_segment
from manifests.sealing import BODY_SLOT, HEADER_SIZE, ObjectKey, Ring, Sealing
from manifests.tree import disk_digest, leaf

from . import make_vectors as made

SEALED = made.VECTORS / "sealed"
SEALING = Sealing(made.REPOSITORY, known_ring(made.REPOSITORY, generations=2))
CHUNK = made.CHUNK
TAIL = made.RANDOM[: CHUNK - 512] + bytes(512)
"""The last chunk of a disk that ends 512 bytes before it."""
PLAIN = made.SQUEEZED + bytes(CHUNK) + made.RANDOM + made.RANDOM[::-1] + TAIL[:-512]
"""The disk: three chunks of the page (one of zeros), one that an overlay changes, and a last one that is cut."""
MANIFEST = manifest_key(made.manifest().machine.name, made.manifest().sequence)


@contextmanager
def known_salts() -> Iterator[None]:
    """Salts that follow from the contents."""
    with patch("manifests.envelope.fresh_salt", lambda contents: blake3(contents, derive_key_context="salt").digest()):
        yield


def objects() -> dict[str, bytes]:
    """All objects by key."""
    with known_salts():
        return {"repository.json": made.DOCUMENT.encode(), **_objects()}


def _objects() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    packs = PackTable()
    hasher = SEALING.chunk_hasher()
    rows = empty_rows(5)
    for number, chunks in enumerate(({0: made.SQUEEZED, 2: made.RANDOM, 4: TAIL}, {3: made.RANDOM[::-1]})):
        builder = PackBuilder(made.LINEAGE, CHUNK, SEALING)
        for position, plain in chunks.items():
            packed = zstandard.ZstdCompressor(level=1).compress(plain)
            flags = 0 if len(packed) < CHUNK else FLAG_STORED
            slot, offset, length = builder.add(position, hasher(plain), plain if flags else packed, flags)
            rows[position] = (np.frombuffer(hasher(plain), "<u8"), number, offset, length, slot, flags)
        pack, data = builder.seal()
        assert packs.ordinal(pack) == number
        found[pack_key(pack)] = data

    def put(kind: Kind, plain: bytes) -> bytes:
        object_id, data = seal_by_id(kind, plain, sealing=SEALING)
        found[page_key(object_id)] = data
        return object_id

    base = rows.copy()
    base[3] = empty_rows(1)[0]
    directory = PageDirectory(5)
    directory[0] = put(Kind.PAGE, encode_page(0, base, packs))
    segment = put(Kind.SEGMENT, encode_segment(np.array([3], "<u8"), rows[3:4], packs))
    uses = {pack: PackUse(len(found[pack_key(pack)]), 0) for pack in packs.ids}
    for row in rows[rows["length"] > 0]:
        uses[packs.ids[int(row["pack"])]].live += int(row["length"])
    lists = put(Kind.PACK_LIST, encode_pack_list(uses))
    tier = Tier(segments=(Segment(id=segment.hex(), first=3, last=3, count=1),), count=1)
    point = made.manifest()
    disk = point.disks[0].model_copy(
        update={
            "digest": disk_digest(leaf(ids_of(rows)), size=len(PLAIN), chunk_size=CHUNK).hex(),
            "index": Index(pages=put(Kind.PAGE_DIRECTORY, directory.encode()).hex(), tiers=(tier,)),
            "packs": (lists.hex(),),
            "base_lists": 1,
            "live_bytes": sum(use.live for use in uses.values()),
            "data_bytes": 4 * CHUNK,
        }
    )
    assert disk.size == len(PLAIN)
    found[MANIFEST] = point.model_copy(update={"disks": (disk,)}).encode(SEALING)
    return found


def open_and_seal_pack(data: bytes, key: ObjectKey) -> bytes:
    """The pack whose parts are those of `data`, opened and sealed again."""
    table = read_table(data, sealing=SEALING, name="pack")
    parts = [data[:HEADER_SIZE]]
    at = HEADER_SIZE
    for slot, (chunk, length) in enumerate(zip(table.ids, table.lengths.tolist(), strict=True)):
        parts.append(key.seal(slot, key.open(slot, data[at : at + length], chunk=chunk, name="chunk"), chunk=chunk))
        at += length
    head, sealed = data[at : at + 16], data[at + 16 : -FOOTER_SIZE]
    parts += [head, key.seal(BODY_SLOT, key.open(BODY_SLOT, sealed, head=head, name="table"), head=head)]
    return b"".join([*parts, data[-FOOTER_SIZE:]])


def sign_again(data: bytes, key: str, ring: Ring | None = None) -> bytes:
    """An object named by place as the writer of `ring` would have signed it (default: of the golden ring)."""
    chosen = ring or SEALING.ring
    assert chosen is not None
    assert chosen.writer is not None
    content = data[HEADER_SIZE : -32 - SIGNED_SIZE] + chosen.writer.certificate.encode()
    text = b"failback 2026 object signature v1" + blake3(data[:64] + bytes(64) + content).digest() + key.encode()
    content = data[:64] + chosen.writer.sign(text) + content
    return content + blake3(content + key.encode()).digest()


def main() -> None:
    if SEALED.exists() and "--replace-unreleased" not in sys.argv:
        print(f"{SEALED} exists and is kept")
        return
    for key, data in objects().items():
        path = SEALED / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
