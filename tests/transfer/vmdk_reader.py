"""A reader of streamOptimized VMDK of our own, from VMware's "Virtual Disk Format 5.0" alone: strict, front to back as
a host takes it; what directory and tables say must be what was seen on the way."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

SECTOR, GRAIN = 512, 65536


@dataclass
class Vmdk:
    sectors: int
    descriptor: str
    grains: dict[int, bytes]
    packed: dict[int, int]
    """Sectors that each grain takes."""

    def disk(self) -> bytes:
        data = bytearray(-(-self.sectors * SECTOR // GRAIN) * GRAIN)
        for number, grain in self.grains.items():
            data[number * GRAIN : (number + 1) * GRAIN] = grain
        assert not any(data[self.sectors * SECTOR :]), "data behind the end of the disk"
        return bytes(data[: self.sectors * SECTOR])


def number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def read_vmdk(data: bytes) -> Vmdk:
    assert len(data) % SECTOR == 0
    head = data[:SECTOR]
    assert head[:4] == b"KDMV"
    assert number(head, 4, 4) == 3
    assert number(head, 8, 4) == 0x30001
    sectors = number(head, 12, 8)
    assert number(head, 20, 8) * SECTOR == GRAIN
    at, length = number(head, 28, 8), number(head, 36, 8)
    text = data[at * SECTOR : (at + length) * SECTOR].rstrip(b"\0").decode()
    assert number(head, 44, 4) == 512
    assert number(head, 48, 8) == 0
    assert number(head, 56, 8) == 2**64 - 1
    assert head[72:77] == b"\0\n \r\n"
    assert number(head, 77, 2) == 1
    assert not any(head[79:])
    extent = re.search(r'^RW (\d+) SPARSE "[^"\n]+"$', text, re.MULTILINE)
    assert extent is not None
    assert int(extent[1]) == sectors

    grains: dict[int, bytes] = {}
    packed: dict[int, int] = {}
    places: dict[int, int] = {}
    tables: dict[int, dict[int, int]] = {}
    fresh: dict[int, int] = {}
    directory: list[int] = []
    footer = b""
    ended = False
    at = number(head, 64, 8)
    assert not any(data[(1 + 1 + length - 1) * SECTOR : at * SECTOR])
    while at * SECTOR < len(data):
        assert not ended, "something behind the end of the stream"
        sector = data[at * SECTOR : (at + 1) * SECTOR]
        value, size = number(sector, 0, 8), number(sector, 8, 4)
        if size:
            assert value % 128 == 0
            which = value // 128
            assert which < -(-sectors // 128)
            assert not grains or which > max(grains)
            start = at * SECTOR + 12
            inflate = zlib.decompressobj()
            grains[which] = inflate.decompress(data[start : start + size])
            assert inflate.eof
            assert not inflate.unused_data
            assert len(grains[which]) == GRAIN
            places[which] = fresh[which] = at
            packed[which] = -(-(12 + size) // SECTOR)
            assert not any(data[start + size : (at + packed[which]) * SECTOR])
            at += packed[which]
            continue
        kind = number(sector, 12, 4)
        assert not any(sector[16:])
        body = data[(at + 1) * SECTOR : (at + 1 + value) * SECTOR]
        assert len(body) == value * SECTOR
        if kind == 1:
            assert value == 4
            tables[at + 1] = {i: number(body, 4 * i, 4) for i in range(512)}
            assert {i: p for i, p in tables[at + 1].items() if p} == {n % 512: p for n, p in fresh.items()}
            assert len({n // 512 for n in fresh}) == 1
            fresh = {}
        elif kind == 2:
            assert not directory
            count = -(-sectors // (512 * 128))
            assert value == -(-4 * count // SECTOR)
            directory = [number(body, 4 * i, 4) for i in range(count)]
            found = at + 1
        elif kind == 3:
            assert value == 1
            footer = body
        else:
            assert kind == 0
            assert value == 0
            ended = True
        at += 1 + value
    assert ended
    assert not fresh
    assert footer == head[:56] + found.to_bytes(8, "little") + head[64:]
    looked_up = {
        n * 512 + i: place for n, table in enumerate(directory) if table for i, place in tables[table].items() if place
    }
    assert looked_up == places
    return Vmdk(sectors, text, grains, packed)
