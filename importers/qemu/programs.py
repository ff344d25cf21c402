"""The programs of QEMU on this host."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from pipeline.errors import TargetError, TargetFull

LEAST_VERSION = (6, 2)
"""Named block nodes for flash, -action and mptsas as used here are in it; 7.2 is what the tests run with."""
INSTALL = "apt-get install -y qemu-system-x86 qemu-utils"
INSTALL_OVMF = "apt-get install -y ovmf"


def find_program(name: str) -> str:
    """Its path. Raises TargetError when it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise TargetError(f"{name} is not installed on this host", remedy=f"install QEMU: `{INSTALL}`")
    return path


def version_of(binary: str) -> tuple[int, ...]:
    """Empty when it does not tell."""
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"version (\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else ()


def qemu_img(*arguments: str, folder: Path) -> None:
    """Run qemu-img in `folder`. Raises TargetFull, TargetError."""
    command = [find_program("qemu-img"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    said = done.stderr.strip() or f"exit code {done.returncode}"
    kind = TargetFull if "No space left" in said else TargetError
    raise kind(f"qemu-img {arguments[0]} failed in {folder}: {said}", remedy="mend that and run the same command again")
