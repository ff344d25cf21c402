"""The server's side of the fixed newstyle handshake (NetworkBlockDevice/nbd, doc/proto.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pipeline.nbd import protocol as p
from pipeline.nbd.wire import Wire

_MAX_OPTION = 65_536
"""Longest option that is read; a longer one is no honest client's."""
_MAX_OPTIONS = 256
CONTEXT_ID = 1
"""Of base:allocation, the only context there is."""
_CLIENT_FLAGS = p.FIXED_NEWSTYLE | p.NO_ZEROES


@dataclass(frozen=True, slots=True)
class Export:
    """What is served. The empty name means it too."""

    name: str
    description: str
    size: int
    flags: p.Flag
    preferred_block: int
    max_block: int


@dataclass(slots=True)
class Agreed:
    """What a client chose."""

    structured: bool = False
    allocation: bool = False
    """BLOCK_STATUS of base:allocation may be asked for."""


class Rejected(Exception):
    """The client broke the protocol, or wants what there is not; the connection ends."""


def welcome(wire: Wire, export: Export) -> Agreed | None:
    """Negotiate; None when the client said goodbye. Raises Rejected, NbdLost."""
    wire.send([struct.pack(">8s8sH", p.NBDMAGIC, p.IHAVEOPT, _CLIENT_FLAGS)])
    (flags,) = wire.unpack(">I")
    if flags & ~_CLIENT_FLAGS:
        raise Rejected(f"the client sets flags that no client has ({flags:#x})")
    agreed = Agreed()
    for _ in range(_MAX_OPTIONS):
        magic, option, length = p.OPTION.unpack(wire.receive(p.OPTION.size))
        if magic != p.IHAVEOPT:
            raise Rejected("this is not an NBD client")
        if length > _MAX_OPTION:
            raise Rejected(f"an option of {length} bytes")
        data = wire.receive(length)
        if option == p.Option.EXPORT_NAME:
            if not _known(data, export):
                raise Rejected(f"there is no export {_shown(data)}")
            zeroes = b"" if flags & p.NO_ZEROES else bytes(124)
            wire.send([struct.pack(">QH", export.size, export.flags), zeroes])
            return agreed
        if option == p.Option.ABORT:
            _reply(wire, option, p.REP_ACK)
            return None
        if _answer(wire, option, data, export, agreed):
            return agreed
    raise Rejected("endless options")


def _answer(wire: Wire, option: int, data: bytes, export: Export, agreed: Agreed) -> bool:
    """Whether transmission begins."""
    try:
        if option == p.Option.GO or option == p.Option.INFO:
            return _info(wire, option, data, export)
        if option == p.Option.LIST:
            if data:
                raise _Invalid
            name = export.name.encode()
            _reply(wire, option, p.REP_SERVER, struct.pack(">I", len(name)) + name)
            _reply(wire, option, p.REP_ACK)
        elif option == p.Option.STRUCTURED_REPLY:
            if data:
                raise _Invalid
            agreed.structured = True
            _reply(wire, option, p.REP_ACK)
        elif option in (p.Option.LIST_META_CONTEXT, p.Option.SET_META_CONTEXT):
            _contexts(wire, option, data, export, agreed)
        else:
            _reply(wire, option, p.REP_ERR_UNSUP)
    except (_Invalid, struct.error):
        _reply(wire, option, p.REP_ERR_INVALID)
    except _Unknown:
        _reply(wire, option, p.REP_ERR_UNKNOWN, f"the export is called {export.name}".encode())
    return False


def _info(wire: Wire, option: int, data: bytes, export: Export) -> bool:
    name, rest = _string(data)
    (count,) = struct.unpack_from(">H", rest)
    if len(rest) != 2 + 2 * count:
        raise _Invalid
    wanted = set(struct.unpack_from(f">{count}H", rest, 2))
    if not _known(name, export):
        raise _Unknown
    _reply(wire, option, p.REP_INFO, struct.pack(">HQH", p.INFO_EXPORT, export.size, export.flags))
    if p.INFO_NAME in wanted:
        _reply(wire, option, p.REP_INFO, struct.pack(">H", p.INFO_NAME) + export.name.encode())
    if p.INFO_DESCRIPTION in wanted:
        _reply(wire, option, p.REP_INFO, struct.pack(">H", p.INFO_DESCRIPTION) + export.description.encode())
    if p.INFO_BLOCK_SIZE in wanted:
        sizes = struct.pack(">HIII", p.INFO_BLOCK_SIZE, 1, export.preferred_block, export.max_block)
        _reply(wire, option, p.REP_INFO, sizes)
    _reply(wire, option, p.REP_ACK)
    return option == p.Option.GO


def _contexts(wire: Wire, option: int, data: bytes, export: Export, agreed: Agreed) -> None:
    setting = option == p.Option.SET_META_CONTEXT
    if setting:
        agreed.allocation = False
        if not agreed.structured:
            raise _Invalid
    name, rest = _string(data)
    (count,) = struct.unpack_from(">I", rest)
    rest = rest[4:]
    queries = []
    while rest:
        query, rest = _string(rest)
        queries.append(query)
    if len(queries) != count:
        raise _Invalid
    if not _known(name, export):
        raise _Unknown
    context = p.BASE_ALLOCATION.encode()
    asked = context in queries or (not setting and (not queries or b"base:" in queries))
    if asked:
        _reply(wire, option, p.REP_META_CONTEXT, struct.pack(">I", CONTEXT_ID if setting else 0) + context)
    if setting:
        agreed.allocation = asked
    _reply(wire, option, p.REP_ACK)


class _Invalid(Exception):
    pass


class _Unknown(Exception):
    pass


def _string(data: bytes) -> tuple[bytes, bytes]:
    """A string with its length in front, and what follows it."""
    (length,) = struct.unpack_from(">I", data)
    if length > p.MAX_STRING or 4 + length > len(data):
        raise _Invalid
    return data[4 : 4 + length], data[4 + length :]


def _known(name: bytes, export: Export) -> bool:
    return name in (b"", export.name.encode())


def _shown(name: bytes) -> str:
    return repr(name[:100].decode("utf-8", "replace"))


def _reply(wire: Wire, option: int, kind: int, data: bytes = b"") -> None:
    wire.send([p.OPTION_REPLY.pack(p.OPTION_REPLY_MAGIC, option, kind, len(data)), data])
