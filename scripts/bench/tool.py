"""Tool: where the programs are that take part."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINNED = ("minio", "restic", "kopia", "versitygw")


class ToolMissing(Exception):
    """A program is neither built, nor cached, nor on the PATH."""


@functools.cache
def find(name: str) -> str:
    """Path of a program: the pinned build where there is one, else the one on PATH. Raises ToolMissing."""
    build = ROOT / "scripts" / "tools" / "build"
    if name in PINNED and build.exists():
        answer = subprocess.run([build, name], stdout=subprocess.PIPE, text=True, check=False)
        if answer.returncode == 0:
            return answer.stdout.strip().splitlines()[-1]
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if found is None:
        raise ToolMissing(f"{name}: not built by scripts/tools/build and not on PATH")
    return found


def failback() -> list[str]:
    """The first arguments that start this program: the installed command, else this checkout with this Python."""
    installed = Path(sys.executable).parent / "failback"
    if installed.exists():
        return [str(installed)]
    if (ROOT / "pipeline" / "cli" / "main.py").exists():
        return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {_START}"]
    raise ToolMissing("failback: the checkout has no command line yet")


_START = "from pipeline.cli.main import run; run()"


def version(*command: str) -> str:
    """First line a program prints about its version."""
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return (answer.stdout or answer.stderr).strip().partition("\n")[0]
