"""The fixed newstyle handshake: what an export is and can do."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.nbd import protocol as p
from pipeline.nbd.wire import Wire


@dataclass(slots=True)
class Terms:
    """What client and server agreed on. Sizes in bytes; `contexts` maps names of meta contexts to their ids."""

    size: int = -1
    flags: p.Flag = p.Flag.HAS_FLAGS
    min_block: int = 1
    preferred_block: int = 4096
    max_block: int = p.DEFAULT_MAX_BLOCK
    structured: bool = False
    contexts: dict[str, int] = field(default_factory=dict)


def handshake(wire: Wire, export: str) -> Terms:
    """Negotiate `export` with structured replies and the meta contexts base:allocation and qemu:dirty-bitmap:*.

    Raises NbdRefused or NbdLost.
    """
    magic, option_magic = wire.unpack(">8s8s")
    if magic != p.NBDMAGIC:
        raise p.NbdRefused("this is not an NBD server")
    if option_magic != p.IHAVEOPT:
        raise p.NbdRefused("the server speaks only the old NBD handshake")
    (offered,) = wire.unpack(">H")
    if not offered & p.FIXED_NEWSTYLE:
        raise p.NbdRefused("the server speaks only an old NBD handshake")
    no_zeroes = offered & p.NO_ZEROES
    wire.send([struct.pack(">I", p.FIXED_NEWSTYLE | no_zeroes)])

    name = export.encode()
    if len(name) > p.MAX_STRING:
        raise p.NbdRefused("the export's name is too long")
    terms = Terms()
    terms.structured = _structured(wire)
    if terms.structured:
        terms.contexts = _contexts(wire, name)
    try:
        _go(wire, name, terms)
    except _Unsupported:
        _export_name(wire, name, terms, zeroes=124 if not no_zeroes else 0)
    _check(terms)
    return terms


class _Unsupported(Exception):
    pass


def _structured(wire: Wire) -> bool:
    try:
        for _ in _option(wire, p.Option.STRUCTURED_REPLY, b""):
            pass
    except (_Unsupported, p.NbdRefused):
        return False
    return True


def _contexts(wire: Wire, name: bytes) -> dict[str, int]:
    head = struct.pack(">I", len(name)) + name
    wanted: list[bytes] = []
    try:
        for kind, data in _option(wire, p.Option.LIST_META_CONTEXT, head + struct.pack(">I", 0)):
            context = data[4:]
            known = context == p.BASE_ALLOCATION.encode() or context.startswith(p.DIRTY_BITMAP.encode())
            if kind == p.REP_META_CONTEXT and known and len(context) <= p.MAX_STRING:
                wanted.append(context)
        if not wanted:
            return {}
        queries = b"".join(struct.pack(">I", len(query)) + query for query in wanted)
        request = head + struct.pack(">I", len(wanted)) + queries
        chosen: dict[str, int] = {}
        for kind, data in _option(wire, p.Option.SET_META_CONTEXT, request):
            if kind == p.REP_META_CONTEXT and len(data) > 4:
                chosen[data[4:].decode("utf-8", "replace")] = int.from_bytes(data[:4], "big")
    except (_Unsupported, p.NbdRefused):
        return {}  # GO will say what is wrong, if anything is
    return chosen


def _go(wire: Wire, name: bytes, terms: Terms) -> None:
    request = struct.pack(">I", len(name)) + name + struct.pack(">HH", 1, p.INFO_BLOCK_SIZE)
    for kind, data in _option(wire, p.Option.GO, request):
        if kind != p.REP_INFO or len(data) < 2:
            continue
        (info,) = struct.unpack_from(">H", data)
        if info == p.INFO_EXPORT and len(data) == 12:
            terms.size, flags = struct.unpack_from(">QH", data, 2)
            terms.flags = p.Flag(flags)
        elif info == p.INFO_BLOCK_SIZE and len(data) == 14:
            terms.min_block, terms.preferred_block, terms.max_block = struct.unpack_from(">III", data, 2)


def _export_name(wire: Wire, name: bytes, terms: Terms, zeroes: int) -> None:
    wire.send([p.OPTION.pack(p.IHAVEOPT, p.Option.EXPORT_NAME, len(name)), name])
    terms.size, flags = wire.unpack(">QH")
    terms.flags = p.Flag(flags)
    wire.receive(zeroes)
    terms.contexts = {}


def _check(terms: Terms) -> None:
    if not 0 <= terms.size < 1 << 63:
        raise p.NbdRefused(f"the server gives no sensible size ({terms.size})")
    least, most = terms.min_block, terms.max_block
    if least & (least - 1) or not 1 <= least <= 65_536 or not least <= most:
        raise p.NbdRefused(f"the server gives no sensible block sizes (minimum {least}, maximum {most})")
    # A server may allow more; nobody gains from it, and our lengths stay small.
    terms.max_block = min(most, p.DEFAULT_MAX_BLOCK) // least * least


def _option(wire: Wire, option: p.Option, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Ask, then yield (type, data) of each reply up to the acknowledgement."""
    wire.send([p.OPTION.pack(p.IHAVEOPT, option, len(data)), data])
    for _ in range(p.MAX_OPTION_REPLIES):
        magic, about, kind, length = p.OPTION_REPLY.unpack(wire.receive(p.OPTION_REPLY.size))
        if magic != p.OPTION_REPLY_MAGIC or about != option:
            raise p.NbdLost("the server broke the protocol (reply to another option)")
        if length > p.MAX_OPTION_REPLY:
            raise p.NbdLost(f"the server broke the protocol (option reply of {length} bytes)")
        answer = wire.receive(length)
        if kind == p.REP_ACK:
            return
        if kind == p.REP_ERR_UNSUP:
            raise _Unsupported
        if kind & p.REP_ERROR:
            reason = p.REPLY_ERRORS.get(kind, f"error {kind:#x}")
            said = answer.decode("utf-8", "replace").strip()
            raise p.NbdRefused(f"{reason} ({said})" if said else reason)
        yield kind, answer
    raise p.NbdLost("the server broke the protocol (endless option replies)")
