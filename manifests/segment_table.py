"""The segment table of a large overlay tier (FORMAT.md, section 6)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from manifests.entry import ID_SIZE
from manifests.errors import CorruptObject
from manifests.manifest import Segment, check_ascending

_HEAD = struct.Struct("<II")
_ROW = ID_SIZE + 8 + 8 + 4
MAX_SEGMENTS = 1 << 20


def encode_segment_table(segments: Sequence[Segment]) -> bytes:
    """Plain form. ValueError when there are too many or they do not ascend."""
    if len(segments) > MAX_SEGMENTS:
        raise ValueError(f"{len(segments)} segments are too many for one tier")
    check_ascending(segments)
    return b"".join(
        [
            _HEAD.pack(len(segments), 0),
            *(bytes.fromhex(s.id) for s in segments),
            np.array([s.first for s in segments], "<u8").tobytes(),
            np.array([s.last for s in segments], "<u8").tobytes(),
            np.array([s.count for s in segments], "<u4").tobytes(),
        ]
    )


def table_ids(plain: bytes, *, name: str) -> bytes:
    """Only the ids of the segments, side by side. Raises CorruptObject."""
    decode_segment_table(plain, name=name)
    return plain[_HEAD.size : _HEAD.size + ID_SIZE * _HEAD.unpack_from(plain)[0]]


def decode_segment_table(plain: bytes, *, name: str) -> tuple[Segment, ...]:
    """Raises CorruptObject."""
    damaged = CorruptObject(f"{name} is damaged: its segments do not add up")
    if len(plain) < _HEAD.size:
        raise damaged
    count, zero = _HEAD.unpack_from(plain)
    if zero or count > MAX_SEGMENTS or len(plain) != _HEAD.size + _ROW * count:
        raise damaged
    at = _HEAD.size + ID_SIZE * count
    ids = [plain[i : i + ID_SIZE].hex() for i in range(_HEAD.size, at, ID_SIZE)]
    first = np.frombuffer(plain, "<u8", count, at).tolist()
    last = np.frombuffer(plain, "<u8", count, at + 8 * count).tolist()
    counts = np.frombuffer(plain, "<u4", count, at + 16 * count).tolist()
    try:
        segments = tuple(
            Segment(id=i, first=f, last=e, count=c) for i, f, e, c in zip(ids, first, last, counts, strict=True)
        )
        check_ascending(segments)
    except ValueError as error:
        raise damaged from error
    return segments
