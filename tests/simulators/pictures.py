"""Pictures of consoles."""

from __future__ import annotations

import io

from PIL import Image, ImageDraw

TEXT_MODE = (720, 400)
"""Pixels of VGA's text mode."""
SEABIOS = ("SeaBIOS (version 1.16.2-debian-1.16.2-1)", "", "iPXE (https://ipxe.org) 00:03.0 CA00 PCI2.10 PnP PMM", "")
BOOTING = (*SEABIOS, "Booting from Hard Disk...")
NOTHING_TO_BOOT = (*BOOTING, "Boot failed: not a bootable disk", "", "No bootable device.")
LOGIN = ("Debian GNU/Linux 12 web-1 tty1", "", "web-1 login: _")


def png(*lines: str, size: tuple[int, int] = TEXT_MODE, background: str = "black", text: str = "#aaaaaa") -> bytes:
    """A picture with these lines of text on it."""
    image = Image.new("RGB", size, background)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((0, 16 * number), line, fill=text)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
