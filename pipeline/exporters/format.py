"""Which format a disk image has: by its name or by the user's word, never by its content alone.

A guest owns every byte of its raw disk. It can write the header of a qcow2 image there that names any file of the
host as its backing file; whoever then believes the content reads that file for the guest. QEMU warns of this wherever
it probes (qemu/docs/system/images.rst, "format probing"). So content only confirms: where it contradicts the name, the
user has to say what it is.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import UsageError

FORMATS = ("raw", "qcow2", "vmdk", "vpc", "vhdx", "vdi")
"""Names as QEMU has them; vpc is the older Hyper-V and Azure format, .vhd."""

_ALIASES = {"vhd": "vpc", "qcow": "qcow2", "img": "raw"}
_EXTENSIONS = {
    ".qcow2": "qcow2",
    ".vmdk": "vmdk",
    ".vhd": "vpc",
    ".vpc": "vpc",
    ".vhdx": "vhdx",
    ".vdi": "vdi",
}


def known_format(name: str) -> str | None:
    """QEMU's name of a format; None for one we do not know."""
    name = name.lower()
    name = _ALIASES.get(name, name)
    return name if name in FORMATS else None


def format_by_name(path: str) -> str:
    """The format that a file's extension stands for; raw for any we do not know."""
    return _EXTENSIONS.get(Path(path).suffix.lower(), "raw")


def format_of_source(spec: str, image_format: str | None) -> str:
    """What a manifest calls the format of what a user named: a path, an address, or what a plug-in knows."""
    if "://" in spec:
        return spec.partition(":")[0].partition("+")[0]
    if image_format is not None:
        return known_format(image_format) or image_format
    if spec.startswith("/dev/"):
        return "device"
    return format_by_name(spec)


def format_by_content(fd: int, size: int) -> str | None:
    """The image format whose signature is there; None when there is none. Not to be trusted, see above."""
    head = os.pread(fd, 512, 0)
    tail = os.pread(fd, 512, size - 512) if size >= 512 else b""
    if head.startswith(b"QFI\xfb"):
        return "qcow2"
    if head.startswith((b"KDMV", b"COWD")) or head.lstrip(b"\xef\xbb\xbf\r\n").startswith(b"# Disk DescriptorFile"):
        return "vmdk"
    if head.startswith(b"vhdxfile"):
        return "vhdx"
    if head.startswith(b"conectix") or tail.startswith(b"conectix"):
        return "vpc"
    if head[64:68] == b"\x7f\x10\xda\xbe":
        return "vdi"
    return None


def decide_format(path: str, fd: int, size: int, image_format: str | None) -> str:
    """The format to read `path` in: what the user says, else what the name says if the content does not contradict.

    Raises UsageError, naming --format.
    """
    content = format_by_content(fd, size)
    if image_format is not None:
        chosen = known_format(image_format)
        if chosen is None:
            raise UsageError(f"{image_format}: unknown image format", remedy=f"Known are: {', '.join(FORMATS)}.")
        if chosen not in ("raw", content):
            raise UsageError(f"{path}: is no {chosen} image, by its content {_article(content)}")
        return chosen
    named = format_by_name(path)
    if content == (None if named == "raw" else named):
        return named
    raise UsageError(
        f"{path}: is {_article(None if named == 'raw' else named)} by its name, but {_article(content)} by its content",
        remedy=f"Say which: --format {content or named} or --format raw. (A guest can write any content into its own "
        "raw disk, so the content is not believed.)"
        + (" For a -flat.vmdk, name the small .vmdk beside it." if named == "vmdk" else ""),
    )


def _article(name: str | None) -> str:
    return "a raw disk" if name is None else f"a {name} image"
