"""From what the user wrote to the exporter that reads it."""

from __future__ import annotations

import os
import re
import stat
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from pipeline.errors import SourceError, UsageError
from pipeline.exporters.base import Exporter
from pipeline.exporters.blockdev import BlockDevice
from pipeline.exporters.format import FORMATS, decide_format, known_format

GROUP = "failback.exporters"
_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://")


class Factory(Protocol):
    """What an entry point of the group `failback.exporters` names.

    Its name is a scheme: `lvm` is asked to open `lvm://...`, with the whole of what the user wrote as `spec`. It may
    also be a format of files: `--format NAME` then opens any path with it. `allow_live` is the user's consent to read
    a disk that is written to; without it, raise SourceBusy. With it, set `live` on the exporter.
    """

    def __call__(self, spec: str, *, image_format: str | None = None, allow_live: bool = False) -> Exporter: ...


def open_exporter(spec: str, *, image_format: str | None = None, allow_live: bool = False) -> Exporter:
    """Open a path (raw file, disk image, block device), an `nbd://` or `nbd+unix://` address, or what a plug-in knows.

    The format of a path comes from `image_format` or from its extension; content that contradicts the extension is a
    UsageError (see pipeline.exporters.format). Raises SourceError and its kin.
    """
    scheme = _SCHEME.match(spec)
    if scheme:
        return _by_scheme(scheme[1])(spec, image_format=image_format, allow_live=allow_live)
    if image_format is not None and known_format(image_format) is None:
        factory = _plugin(image_format)
        if factory is None:
            raise UsageError(f"{image_format}: unknown image format", remedy=f"Known are: {', '.join(FORMATS)}.")
        return factory(spec, image_format=image_format, allow_live=allow_live)
    return _by_path(spec, image_format)(spec, image_format=image_format, allow_live=allow_live)


def _by_scheme(scheme: str) -> Factory:
    if scheme in ("nbd", "nbd+unix", "nbds", "nbds+unix"):
        from pipeline.exporters.nbd import open_nbd

        return open_nbd
    factory = _plugin(scheme)
    if factory is None:
        raise UsageError(
            f"{scheme}://: no exporter reads this", remedy="Name a file, a block device, nbd://... or nbd+unix://..."
        )
    return factory


def _by_path(path: str, image_format: str | None) -> Factory:
    try:
        mode = Path(path).stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise UsageError(f"{path}: neither a file nor a block device")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SourceError(f"{path}: cannot open: {error.strerror}") from error
    try:
        device = BlockDevice.of(fd)
        size = device.size if device else os.fstat(fd).st_size
        chosen = decide_format(path, fd, size, image_format)
    finally:
        os.close(fd)
    if chosen != "raw":
        from pipeline.exporters.image import open_image

        return open_image
    if device is not None:
        from pipeline.exporters.device import open_device

        return open_device
    from pipeline.exporters.raw import open_raw

    return open_raw


def _plugin(name: str) -> Factory | None:
    """Only what is not built in is looked up: reading the metadata of all installed packages takes time."""
    for entry in entry_points(group=GROUP, name=name):
        factory: Factory = entry.load()
        return factory
    return None
