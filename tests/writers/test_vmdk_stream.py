"""The bytes of a VMDK stream, pinned: whoever changes them breaks what readers were tried with."""

from __future__ import annotations

import struct
import zlib

import pytest

from pipeline.errors import Unsupported
from pipeline.writers.vmdk_grain import STORED, compressed, compressor, length_of, stored
from pipeline.writers.vmdk_stream import FRONT, GRAIN, SECTOR, Shape, StreamEncoder

MIB = 1 << 20
DESCRIPTOR = b"""# Disk DescriptorFile
version=1
CID=00c0ffee
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW 147457 SPARSE "disk0.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "9"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.virtualHWVersion = "4"
"""
HEADER = bytes.fromhex(
    "4b444d56 03000000 01000300 0140020000000000 8000000000000000 0100000000000000 1400000000000000 00020000"
    "0000000000000000 ffffffffffffffff 8000000000000000 00 0a200d0a 0100"
)


def sector(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // SECTOR) * SECTOR, b"\0")


def test_a_tiny_stream_has_exactly_these_bytes() -> None:
    """72 MiB and a sector: three tables, of which the first and the last are used, with one grain each."""
    shape = Shape(72 * MIB + 1)
    encoder = StreamEncoder(shape, name="disk0.vmdk", cid=0xC0FFEE, adapter="lsilogic")
    plain = bytes(range(256)) * 256
    sent = [encoder.front()]
    for number in (2, 1152):
        grain = stored(number, plain)
        sent += [encoder.place(number, length_of(grain)), *grain]
    sent.append(encoder.end())

    def grain(number: int) -> bytes:
        data = b"\x78\x01" + b"\x00\xff\xff\x00\x00" + plain[:65535] + b"\x01\x01\x00\xfe\xff" + plain[65535:]
        data += struct.pack(">I", zlib.adler32(plain))
        assert zlib.decompress(data) == plain
        return sector(struct.pack("<QI", number * 128, len(data)) + data)

    def marker(kind: int, sectors: int) -> bytes:
        return sector(struct.pack("<QII", sectors, 0, kind))

    def table(entry: int, place: int) -> bytes:
        return marker(1, 4) + bytes(4 * entry) + struct.pack("<I", place) + bytes(2044 - 4 * entry)

    first, second = 128, 128 + 129 + 5 + 129 + 1
    wanted = [(sector(HEADER) + sector(DESCRIPTOR)).ljust(65536, b"\0")]
    wanted += [grain(2), table(2, first), grain(1152), table(128, first + 129 + 5)]
    wanted += [marker(2, 1), sector(struct.pack("<III", first + 129 + 1, 0, second))]
    directory = second + 4 + 1
    wanted += [marker(3, 1), sector(HEADER[:56] + struct.pack("<Q", directory) + HEADER[64:]), marker(0, 0)]
    assert b"".join(sent) == b"".join(wanted)
    assert encoder.position == len(b"".join(sent)) == shape.length(2 * STORED, 2)


def test_a_disk_of_no_size_has_one_sector() -> None:
    encoder = StreamEncoder(Shape(0), name="disk0.vmdk", cid=1, adapter="lsilogic")
    sent = encoder.front() + encoder.end()
    assert len(sent) == Shape(0).length(0, 0) == FRONT + 5 * SECTOR
    assert struct.unpack_from("<Q", sent, 12) == (1,)


def test_a_grain_keeps_its_bytes_whatever_they_are() -> None:
    for plain in (bytes(GRAIN), bytes(range(256)) * 256, zlib.compress(bytes(1 << 24), 0)[:GRAIN]):
        for grain in (stored(7, plain), *(compressed(7, plain, compressor(level)) for level in range(1, 10))):
            data = b"".join(grain)
            at, length = struct.unpack_from("<QI", data)
            assert at == 7 * 128
            assert zlib.decompress(data[12 : 12 + length]) == plain
            assert len(data) == length_of(grain) == -(-(12 + length) // SECTOR) * SECTOR <= STORED


def test_places_beyond_two_tebibytes_are_refused() -> None:
    encoder = StreamEncoder(Shape(8 << 40), name="disk0.vmdk", cid=1, adapter="lsilogic")
    encoder.front()
    encoder.place(0, (2 << 40) - FRONT - STORED)
    encoder.place(1, STORED)
    with pytest.raises(Unsupported, match="VMDK stream"):
        encoder.place(2, SECTOR)
