"""What makes a staged disk trusted without reading it."""

from __future__ import annotations

from pipeline.exporters.files import FileState
from pipeline.transfer.local import LocalDisk
from pipeline.transfer.stage import Stage


def touched(local: LocalDisk) -> str:
    """Who else did something to the file since it was staged; empty: nobody. Reads no data, opens nothing."""
    state = Stage(local.known).state
    if not local.path.is_file():
        return f"{local.path} is gone"
    kind = "file" if local.image_format == "raw" else "image"
    if state is None or state.guard != f"{kind}:{FileState.of(local.path)}":
        return f"somebody wrote to {local.path} since it was staged"
    return ""
