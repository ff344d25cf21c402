"""Busybox: one static program that is most commands."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.boot.command import run


def install_busybox(busybox: Path, tree: Path) -> None:
    """Put the program and a link for each of its commands into a tree; what is there by such a name stays."""
    for command in run(busybox, "--list-full").split():
        path = tree / command
        path.parent.mkdir(parents=True, exist_ok=True)
        if command == "bin/busybox":
            shutil.copy(busybox, path)
        elif not path.exists():
            path.symlink_to("/bin/busybox")
