"""A whole disk as a streamOptimized VMDK, written forward only: nothing that was sent is ever changed.

    header, descriptor, up to sector 128
    grains of 64 KiB that are not zero, ascending;  after the last one of each 32 MiB: marker and grain table
    marker and grain directory
    marker and footer (the header again, with the place of the directory), end-of-stream marker

Numbers are little endian, places are in sectors of 512 bytes; a place of 32 bits limits the stream to 2 TiB. Sources
of the format: VMware's "Virtual Disk Format 5.0", vmdk/vmware_vmdk.h and vmdk/sparse.c of vmware/open-vmdk, the format
notes of libyal/libvmdk, block/vmdk.c of QEMU.

**Verified**: `qemu-img` reads the stream back bit for bit, `qemu-img check` finds nothing. **Never tried** on a real
ESXi host: the directory at the end with a footer (the form that vSphere's own exports have, by report), grains in
stored deflate blocks. The other layout, tables in front that are filled in last, is not offered: whoever sends forward
only would need all lengths, or a file, before the first byte.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import Unsupported

SECTOR = 512
GRAIN = 64 << 10
"""Bytes of the disk that are compressed together."""
TABLE_GRAINS = 512
FRONT = 128 * SECTOR
"""Where the first grain is."""
MAX_STREAM = SECTOR << 32
"""Bytes that the places in grain tables reach."""

Adapter = Literal["ide", "buslogic", "lsilogic", "legacyESX"]
"""What a descriptor may say. There is no word for PVSCSI, SATA and NVMe: `lsilogic` is usual, and the controller that
the machine gets is said elsewhere."""

_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH433x")
_MAGIC, _VERSION = b"KDMV", 3
_FLAGS = 0x30001
"""Line ends to be tested, compressed, with markers."""
_LINE_ENDS = b"\n \r\n"
_DEFLATE = 1
_AT_END = 2**64 - 1
_DESCRIPTOR_AT, _DESCRIPTOR_SECTORS = 1, 20
_MARKER = struct.Struct("<QII496x")
_END_OF_STREAM, _TABLE, _DIRECTORY, _FOOTER = 0, 1, 2, 3
_TABLE_BYTES = SECTOR + 4 * TABLE_GRAINS


@dataclass(frozen=True, slots=True)
class Shape:
    """A disk of `size` bytes. The VMDK has whole sectors, and at least one; what is beyond `size` is zero."""

    size: int

    @property
    def sectors(self) -> int:
        return max(-(-self.size // SECTOR), 1)

    @property
    def grains(self) -> int:
        return -(-self.sectors * SECTOR // GRAIN)

    @property
    def tables(self) -> int:
        return -(-self.grains // TABLE_GRAINS)

    def length(self, grains: int, tables: int) -> int:
        """Bytes of a stream whose grains, headers and padding included, have so many; `tables` are not empty."""
        return FRONT + grains + _TABLE_BYTES * tables + self._end

    @property
    def _end(self) -> int:
        return SECTOR + _whole_sectors(4 * self.tables) + 3 * SECTOR


class StreamEncoder:
    """Everything but the grains. `cid`: 32 bits that change with the content."""

    def __init__(self, shape: Shape, *, name: str, cid: int, adapter: Adapter) -> None:
        self._shape = shape
        self._descriptor = descriptor(shape, name=name, cid=cid, adapter=adapter)
        self._directory = array("I", bytes(4 * shape.tables))
        self._table = array("I", bytes(4 * TABLE_GRAINS))
        self._number = -1
        """Of the table that is being filled."""
        self.position = 0
        """Bytes that went out."""

    def front(self) -> bytes:
        """What comes before the first grain."""
        self.position = FRONT
        return (self._header(_AT_END) + self._descriptor).ljust(FRONT, b"\0")

    def place(self, grain: int, length: int) -> bytes:
        """The next grain, of `length` bytes with its header and padding, is number `grain`: what goes out before it.

        Raises Unsupported when the stream would reach 2 TiB.
        """
        before = self._pass_to(grain // TABLE_GRAINS)
        check_length(self.position + length)
        self._table[grain % TABLE_GRAINS] = self.position // SECTOR
        self.position += length
        return before

    def end(self) -> bytes:
        """What comes after the last grain."""
        table = self._pass_to(-1)
        at = self.position // SECTOR + 1
        directory = _little(self._directory)
        directory = directory.ljust(_whole_sectors(len(directory)), b"\0")
        end = b"".join(
            [
                _marker(_DIRECTORY, len(directory)),
                directory,
                _marker(_FOOTER, SECTOR),
                self._header(at),
                _marker(_END_OF_STREAM, 0),
            ]
        )
        self.position += len(end)
        check_length(self.position)
        return table + end

    def _pass_to(self, number: int) -> bytes:
        """The table so far, when another one follows."""
        if number == self._number:
            return b""
        done, self._number = self._number, number
        if done < 0:
            return b""
        self._directory[done] = self.position // SECTOR + 1
        table = _marker(_TABLE, 4 * TABLE_GRAINS) + _little(self._table)
        self._table = array("I", bytes(4 * TABLE_GRAINS))
        self.position += len(table)
        return table

    def _header(self, directory: int) -> bytes:
        return _HEADER.pack(
            _MAGIC,
            _VERSION,
            _FLAGS,
            self._shape.sectors,
            GRAIN // SECTOR,
            _DESCRIPTOR_AT,
            _DESCRIPTOR_SECTORS,
            TABLE_GRAINS,
            0,
            directory,
            FRONT // SECTOR,
            0,
            _LINE_ENDS,
            _DEFLATE,
        )


def descriptor(shape: Shape, *, name: str, cid: int, adapter: Adapter) -> bytes:
    """The text of the disk, padded to its sectors. Below 512 bytes with a short name: some readers look no further."""
    heads = 16 if adapter == "ide" else 255
    cylinders = shape.sectors // (heads * 63)
    if adapter == "ide":
        cylinders = min(cylinders, 16383)  # what ATA can say
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        f"CID={cid:08x}",
        "parentCID=ffffffff",
        'createType="streamOptimized"',
        "",
        "# Extent description",
        f'RW {shape.sectors} SPARSE "{name}"',
        "",
        "# The Disk Data Base",
        "#DDB",
        "",
        f'ddb.adapterType = "{adapter}"',
        f'ddb.geometry.cylinders = "{max(cylinders, 1)}"',
        f'ddb.geometry.heads = "{heads}"',
        'ddb.geometry.sectors = "63"',
        'ddb.virtualHWVersion = "4"',
        "",
    ]
    return "\n".join(lines).encode("ascii").ljust(_DESCRIPTOR_SECTORS * SECTOR, b"\0")


def adapter_of(bus: str) -> Adapter:
    """What the descriptor says of a disk on this bus of its machine."""
    return "ide" if bus == "ide" else "lsilogic"


def check_length(length: int) -> None:
    """Raises Unsupported for a stream that the format cannot hold."""
    if length > MAX_STREAM:
        raise Unsupported(
            f"a VMDK stream of {length} bytes cannot be: its tables reach {MAX_STREAM} bytes",
            remedy="write the disk's blocks instead (for VMware: with the worker)",
        )


def _marker(kind: int, length: int) -> bytes:
    return _MARKER.pack(length // SECTOR, 0, kind)


def _whole_sectors(length: int) -> int:
    return -(-length // SECTOR) * SECTOR


def _little(values: array[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)
