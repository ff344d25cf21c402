"""A machine's screen as PNG."""

from __future__ import annotations

import re
import struct
import uuid
import zlib
from pathlib import Path

from importers.qemu.qmp import Qmp
from pipeline.errors import TargetError

_HEADER = re.compile(rb"P6\s+(\d+)\s+(\d+)\s+255\s")


def take_picture(folder: Path) -> bytes:
    """What the screen shows now. QEMU writes PPM, in every release. Raises QmpError, QmpGone, TargetError."""
    path = folder / f"screen-{uuid.uuid4().hex}.ppm"
    try:
        with Qmp(folder) as qmp:
            qmp.execute("screendump", filename=path.name)
        return to_png(path.read_bytes())
    except OSError as error:
        raise TargetError(f"cannot read the picture of {folder.name}: {error.strerror}") from error
    finally:
        path.unlink(missing_ok=True)


def to_png(ppm: bytes) -> bytes:
    """PPM (netpbm, P6 of 255 levels) as PNG (ISO 15948): one IDAT, no filter."""
    header = _HEADER.match(ppm)
    if header is None:
        raise TargetError("QEMU's picture is no PPM")
    width, height = int(header[1]), int(header[2])
    row = 3 * width
    pixels = memoryview(ppm)[header.end() :]
    if len(pixels) < row * height:
        raise TargetError("QEMU's picture is cut short")
    lines = b"".join(b"\0" + pixels[y * row : (y + 1) * row] for y in range(height))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, data)
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(lines, 1)),
            (b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
