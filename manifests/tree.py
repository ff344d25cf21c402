"""The Merkle tree over a disk's chunk ids (FORMAT.md, section 8)."""

from __future__ import annotations

import struct
from functools import lru_cache

from blake3 import blake3

from manifests.entry import ID_SIZE

FAN_OUT = 64
LEAF_POSITIONS = FAN_OUT * FAN_OUT
_CONTEXT = "failback 2026 disk digest v1"
_STRIDE = FAN_OUT * ID_SIZE


def node(children: bytes | bytearray | memoryview) -> bytes:
    """A node from its up to 64 children side by side."""
    return blake3(children).digest()


def level_up(nodes: bytes | bytearray | memoryview) -> bytes:
    """The next level of nodes that stand side by side."""
    view = memoryview(nodes)
    return b"".join(node(view[i : i + _STRIDE]) for i in range(0, len(view), _STRIDE))


def leaf(ids: bytes | bytearray | memoryview) -> bytes:
    """The leaf (level 2) over the ids of up to 4,096 positions."""
    return node(level_up(ids))


@lru_cache(maxsize=64)
def zero_leaf(positions: int) -> bytes:
    """The leaf over `positions` zero chunks."""
    return leaf(bytes(ID_SIZE * positions))


def zero_leaves(positions: int) -> bytearray:
    """The leaves of a disk of `positions` zero chunks, side by side."""
    whole, rest = divmod(positions, LEAF_POSITIONS)
    return bytearray(zero_leaf(LEAF_POSITIONS) * whole + (zero_leaf(rest) if rest else b""))


def disk_digest(leaves: bytes | bytearray, *, size: int, chunk_size: int) -> bytes:
    """The digest of a disk of `size` bytes whose leaves stand side by side. ValueError when their number is wrong."""
    wanted = -(-size // (chunk_size * LEAF_POSITIONS))
    if len(leaves) != ID_SIZE * wanted:
        raise ValueError(f"{len(leaves)} bytes are not the {wanted} leaves of a disk of {size} bytes")
    nodes = bytes(leaves)
    while len(nodes) > ID_SIZE:
        nodes = level_up(nodes)
    root = nodes or bytes(ID_SIZE)
    return blake3(root + struct.pack("<QI", size, chunk_size), derive_key_context=_CONTEXT).digest()
