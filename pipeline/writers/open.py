"""From what the user wrote to the writer of that target."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from pipeline.errors import TargetMismatch, UsageError
from pipeline.exporters.format import FORMATS, format_by_name, known_format
from pipeline.writers.base import BlockWriter


def open_writer(
    path: str,
    *,
    size: int,
    image_format: str | None = None,
    create: bool = True,
    expect_size: int | None = None,
    expect_serial: str | None = None,
) -> BlockWriter:
    """Open a target for a disk of `size` bytes: a file, an image, a block device, or an NBD export.

    `image_format` is raw, qcow2, vmdk, vhd or vhdx; without it the extension decides. With `create` a file is made
    anew and must not exist yet; else it must. A block device always exists, must be at least `size`, and is opened
    only with `expect_size` or `expect_serial`. Raises UsageError and TargetError's kin.
    """
    if re.match(r"^nbds?(\+unix)?://", path):
        from pipeline.writers.nbd import open_nbd

        return open_nbd(path, size=size)
    chosen = format_by_name(path) if image_format is None else known_format(image_format)
    if chosen is None:
        raise UsageError(f"{image_format}: unknown image format", remedy=f"Known are: {', '.join(FORMATS)}.")
    if _is_device(path):
        if chosen != "raw":
            raise UsageError(f"{path}: a {chosen} image is not written onto a block device")
        from pipeline.writers.device import open_device

        device = open_device(path, expect_size=expect_size, expect_serial=expect_serial)
        if device.size < size:
            device.close()
            raise TargetMismatch(
                f"{path}: has {device.size} bytes, the disk has {size}", remedy="Attach a disk that is large enough."
            )
        return device
    if chosen == "raw":
        from pipeline.writers.raw import create_raw, open_raw

        return create_raw(path, size) if create else open_raw(path, size)
    from pipeline.writers.image import create_image, open_image

    return create_image(path, size, chosen) if create else open_image(path, size, chosen)


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(Path(path).stat().st_mode)
    except OSError:
        return False
