"""Install the package as an installer would: its modules and its metadata in a folder on the path."""

from __future__ import annotations

import shutil
from pathlib import Path

_METADATA = "Metadata-Version: 2.1\nName: shed\nVersion: 1.0\n"
_ENTRY_POINTS = """[failback.importers]
shed = shed.importer:ShedImporter
broken = shed.nothing:Nothing

[failback.hooks]
door = shed.hook:DoorHook
"""


def install(folder: Path) -> Path:
    """Into `folder`, which is then to be put on the path."""
    shutil.copytree(Path(__file__).parent / "shed", folder / "shed", ignore=shutil.ignore_patterns("__pycache__"))
    information = folder / "shed-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(_METADATA)
    (information / "entry_points.txt").write_text(_ENTRY_POINTS)
    (information / "RECORD").write_text("")
    return folder
