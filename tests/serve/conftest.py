from __future__ import annotations

from pathlib import Path

import pytest
from transfer.support import Workbench

from serve.tools import exported


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A repository in memory that holds the disk of `vm`."""
    return exported(Workbench(tmp_path))
