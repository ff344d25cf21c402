"""Pack lists: every pack that one disk of a manifest uses (FORMAT.md, section 7)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.entry import ID_SIZE
from manifests.errors import CorruptObject

_HEAD = struct.Struct("<II")
MAX_PACKS = 1 << 20
"""Packs in one list; a base of more is several lists."""


@dataclass(slots=True)
class PackUse:
    """`stored`: bytes of the pack object (in a change 0 where an earlier list says it); `live`: stored bytes of the
    chunks in use (in a change what is added: may be negative)."""

    stored: int
    live: int


def split_pack_list(packs: dict[bytes, PackUse], *, most: int = MAX_PACKS) -> Iterator[dict[bytes, PackUse]]:
    """The same packs as lists that are short enough to be encoded: one at least, in order of the ids."""
    if len(packs) <= most:
        yield packs
        return
    ids = sorted(packs)
    for at in range(0, len(ids), most):
        yield {i: packs[i] for i in ids[at : at + most]}


def encode_pack_list(packs: dict[bytes, PackUse]) -> bytes:
    """Plain form of one list, of MAX_PACKS packs at most."""
    if len(packs) > MAX_PACKS:
        raise ValueError(f"{len(packs)} packs are too many for one list")
    ids = sorted(packs)
    stored = np.array([packs[i].stored for i in ids], "<u4")
    live = np.array([packs[i].live for i in ids], "<i8")
    return _HEAD.pack(len(ids), 0) + b"".join(ids) + stored.tobytes() + live.tobytes()


def decode_pack_list(plain: bytes, *, name: str) -> dict[bytes, PackUse]:
    """Raises CorruptObject."""
    raw, stored, live = decode_columns(plain, name=name)
    ids = [raw[i : i + ID_SIZE] for i in range(0, len(raw), ID_SIZE)]
    return {i: PackUse(s, v) for i, s, v in zip(ids, stored.tolist(), live.tolist(), strict=True)}


def decode_columns(plain: bytes, *, name: str) -> tuple[bytes, NDArray[np.uint32], NDArray[np.int64]]:
    """(ids side by side, stored lengths, live bytes) of one list. Raises CorruptObject."""
    damaged = CorruptObject(f"{name} is damaged: its entries do not add up")
    if len(plain) < _HEAD.size:
        raise damaged
    count, zero = _HEAD.unpack_from(plain)
    if zero or count > MAX_PACKS or len(plain) != _HEAD.size + count * (ID_SIZE + 4 + 8):
        raise damaged
    at = _HEAD.size + ID_SIZE * count
    raw = plain[_HEAD.size : at]
    ids = np.frombuffer(raw, f"S{ID_SIZE}")
    if not (ids[:-1] < ids[1:]).all():
        raise damaged
    return raw, np.frombuffer(plain, "<u4", count, at), np.frombuffer(plain, "<i8", count, at + 4 * count)


def add_up(lists: Iterable[dict[bytes, PackUse]]) -> dict[bytes, PackUse]:
    """A base and its changes as one list. Raises CorruptObject when they give one pack two lengths."""
    total: dict[bytes, PackUse] = {}
    for packs in lists:
        for pack, use in packs.items():
            known = total.get(pack)
            if known is None:
                total[pack] = PackUse(use.stored, use.live)
                continue
            if use.stored and known.stored and use.stored != known.stored:
                raise CorruptObject(
                    f"pack {pack.hex()} is {known.stored} bytes long in one list, {use.stored} in another"
                )
            known.live += use.live
            known.stored = known.stored or use.stored
    return total
