"""Console pictures: is anything on them, and is it still the firmware's?"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import TargetError

LIT = 32
"""Levels (of 255) by which a pixel differs from the background, in any colour."""
BLANK_SHARE = 0.001
"""Of pixels that are lit; a text cursor alone has a tenth of that."""
KEPT_SHARE = 0.5
"""Of what the firmware had lit. Firmware that goes on writes below what is there; what follows it clears the screen,
scrolls, or takes another mode."""
MAX_PIXELS = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """`lit`: which pixels are not background, and `pixels`: their colours."""

    pixels: NDArray[np.int16]
    lit: NDArray[np.bool_]

    @property
    def size(self) -> str:
        height, width = self.lit.shape
        return f"{width}x{height}"

    @property
    def blank(self) -> bool:
        return bool(self.lit.mean() < BLANK_SHARE)

    def kept(self, later: Picture) -> float:
        """The share of what is lit here that is the same in `later`; 0 when that has another size."""
        if later.lit.shape != self.lit.shape or not self.lit.any():
            return 0.0
        near = (np.abs(self.pixels - later.pixels) < LIT).all(axis=2)
        return float(near[self.lit].mean())


def read_picture(png: bytes) -> Picture:
    """Raises TargetError when this is not a picture."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise TargetError(f"the console picture has {image.width}x{image.height} pixels")
                pixels: Any = np.asarray(image.convert("RGB"), dtype=np.int16)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise TargetError(f"the console picture cannot be read: {error}") from error
    packed = (pixels[:, :, 0].astype(np.int32) << 16) | (pixels[:, :, 1].astype(np.int32) << 8) | pixels[:, :, 2]
    values, counts = np.unique(packed, return_counts=True)
    colour = int(values[counts.argmax()])
    background = np.array([colour >> 16, colour >> 8 & 255, colour & 255], dtype=np.int16)
    return Picture(pixels, (np.abs(pixels - background) >= LIT).any(axis=2))
