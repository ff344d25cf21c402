"""Numbers and layouts of the protocol, and what can go wrong in it (NetworkBlockDevice/nbd, doc/proto.md)."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

PORT = 10809

# Handshake
NBDMAGIC = b"NBDMAGIC"
IHAVEOPT = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003E889045565A9
FIXED_NEWSTYLE = 1
NO_ZEROES = 2
OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")


class Option(IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


REP_ACK = 1
REP_SERVER = 2
REP_INFO = 3
REP_META_CONTEXT = 4
REP_ERROR = 1 << 31
REP_ERR_UNSUP = REP_ERROR + 1
REP_ERR_INVALID = REP_ERROR + 3
REP_ERR_UNKNOWN = REP_ERROR + 6
REPLY_ERRORS = {
    REP_ERROR + 1: "the server does not know this option",
    REP_ERROR + 2: "forbidden by the server",
    REP_ERROR + 3: "invalid request",
    REP_ERROR + 4: "not supported on the server's platform",
    REP_ERROR + 5: "the server wants TLS, which this client does not speak",
    REP_ERROR + 6: "no such export",
    REP_ERROR + 7: "the server is shutting down",
    REP_ERROR + 8: "the server wants block sizes to be negotiated",
    REP_ERROR + 9: "request too big",
}
INFO_EXPORT = 0
INFO_NAME = 1
INFO_DESCRIPTION = 2
INFO_BLOCK_SIZE = 3

# Transmission
REQUEST = struct.Struct(">IHHQQI")
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF
REPLY_DONE = 1
SIMPLE_REPLY = struct.Struct(">IIQ")
STRUCTURED_REPLY = struct.Struct(">IHHQI")


class Command(IntEnum):
    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(IntFlag):
    """How a request is meant."""

    FUA = 1
    NO_HOLE = 2
    DONT_FRAGMENT = 4
    REQ_ONE = 8


class Flag(IntFlag):
    """What an export can do, from the handshake."""

    HAS_FLAGS = 1
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8


class Chunk(IntEnum):
    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = (1 << 15) + 1
    ERROR_OFFSET = (1 << 15) + 2


CHUNK_ERROR = 1 << 15

BASE_ALLOCATION = "base:allocation"
STATE_HOLE = 1
STATE_ZERO = 2
"""Bit of base:allocation: reads as zeros. (Bit 0, hole, says nothing about what is read.)"""
DIRTY_BITMAP = "qemu:dirty-bitmap:"
STATE_DIRTY = 1  # qemu/docs/interop/nbd.txt

MAX_STRING = 4096
"""The protocol's limit for names and messages."""
MAX_OPTION_REPLY = 65_536
MAX_OPTION_REPLIES = 4096
MAX_STATUS_REPLY = 32 * 1024 * 1024
DEFAULT_MAX_BLOCK = 32 * 1024 * 1024
"""What a server that names no limit must accept."""


class NbdError(Exception):
    """The server answered a request with an error; the connection is still good. `code` is an errno."""

    def __init__(self, code: int, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.offset = offset


class NbdRefused(Exception):
    """The handshake failed: no such export, no right, or not an NBD server we can talk to."""


class NbdLost(Exception):
    """The connection is of no use any more: cut, silent, or the server broke the protocol."""
