"""The screen as PNG."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from importers.qemu.picture import to_png
from pipeline.errors import TargetError


def test_every_pixel_is_where_it_was() -> None:
    pixels = bytes((x * 7 + y * 31 + c * 80) % 256 for y in range(5) for x in range(9) for c in range(3))
    image = Image.open(io.BytesIO(to_png(b"P6\n9 5\n255\n" + pixels)))
    image.load()
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (9, 5))
    assert image.tobytes() == pixels


@pytest.mark.parametrize("ppm", [b"", b"P5\n1 1\n255\n\0", b"P6\n2 2\n255\n" + bytes(11)])
def test_what_is_no_picture_is_refused(ppm: bytes) -> None:
    with pytest.raises(TargetError):
        to_png(ppm)
