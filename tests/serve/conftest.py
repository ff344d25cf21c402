from __future__ import annotations

from pathlib import Path

import pytest
from transfer.support import Workbench

from serve.tools import exported


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of their own open the repository as a user's do."""
    monkeypatch.setenv("FAILBACK_KEY_FILE", str(tmp_path / "key"))


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A repository in memory that holds the disk of `vm`."""
    return exported(Workbench(tmp_path))
