"""Command: one host program, run to its end."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from pipeline.boot.errors import MediumError

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""mke2fs, debugfs and sfdisk need no root, but live where only root looks."""


def run(*command: str | Path, text: str | None = None, folder: Path | None = None, remedy: str = "") -> str:
    """What the program prints on standard output, given `text` as standard input.

    Raises MediumError with the last lines of its standard error when it fails or is not installed.
    """
    name = str(command[0])
    program = shutil.which(name, path=_PATH)
    if program is None:
        raise MediumError(f"{name} is not installed", remedy="run scripts/setup/environment guest")
    done = subprocess.run(
        [program, *map(str, command[1:])],
        input=text,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C", "MTOOLS_SKIP_CHECK": "1"},
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise MediumError(f"{Path(name).name} failed with {done.returncode}: {said[-600:]}", remedy=remedy)
    return done.stdout
