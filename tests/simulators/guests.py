"""Machines of one boot sector: what a guest can do within 510 bytes, started by BIOS.

All of them write READY to the first serial port when they are there, and then do what their name says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

READY = "sector ready"
WRITTEN = 2 * 512
"""Offset at which `writes` puts a copy of the boot sector."""

Kind = Literal["idles", "counts", "writes", "resets", "halts", "says nothing"]

_TEXT = 0x100
_PROLOGUE = "31c0 8ed8 8ec0"  # xor ax, ax; mov ds, ax; mov es, ax
_SAY = (
    "be 007d"  # mov si, 0x7c00 + 0x100
    "ba f803"  # mov dx, 0x3f8
    "ac 84c0 7403 ee ebf8"  # next: lodsb; test al, al; jz done; out dx, al; jmp next; done:
)
_IDLE = "fb f4 ebfd"  # sti; again: hlt; jmp again
_WRITE = "b80103 bb007c b90300 ba8000 cd13"  # int 0x13: write 1 sector from 0x7c00 to cylinder 0, head 0, sector 3
_RESET = "b0fe e664"  # pulse the reset line of the keyboard controller
_OFF = "ba0406 b80020 ef"  # PM1a_CNT, which SeaBIOS puts at 0x604: SLP_EN

_COUNT = (
    # int 0x13 reads and writes the sector at WRITTEN, by way of 0x7e00
    "b80102 bb007e b90300 ba8000 cd13"  # what it had counted
    "66ff06 007e"  # again: inc dword [0x7e00]
    "b80103 bb007e b90300 ba8000 cd13"  # write
    "b02e ba f803 ee"  # out 0x3f8, '.'
    "fb f4 ebe3"  # sti; hlt until the next tick of the clock, 18 a second; jmp again
)
"""Counts for ever: the number goes to its disk, then a dot to the serial port acknowledges it."""

_CODE: dict[Kind, str] = {
    "counts": _PROLOGUE + _SAY + _COUNT,
    "idles": _PROLOGUE + _SAY + _IDLE,
    "writes": _PROLOGUE + _WRITE + _SAY + _IDLE,
    "resets": _PROLOGUE + _SAY + _RESET + _IDLE,
    "halts": _PROLOGUE + _SAY + _OFF + _IDLE,
    "says nothing": _PROLOGUE + _IDLE,
}


def boot_sector(kind: Kind) -> bytes:
    code = bytes.fromhex(_CODE[kind]).ljust(_TEXT, b"\0") + READY.encode() + b"\r\n\0"
    return code.ljust(510, b"\0") + b"\x55\xaa"


def make_guest(path: Path, kind: Kind, size: int = 1 << 20) -> Path:
    """A disk that boots; sparse."""
    with path.open("wb") as file:
        file.write(boot_sector(kind))
        file.truncate(size)
    return path
