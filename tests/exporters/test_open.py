"""Which exporter a name leads to, and how others add theirs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.exporters import open as opening
from pipeline.exporters.base import Exporter
from pipeline.exporters.open import open_exporter
from pipeline.exporters.raw import RawExporter

calls: list[tuple[str, str | None, bool]] = []


def open_tape(spec: str, *, image_format: str | None = None, allow_live: bool = False) -> Exporter:
    calls.append((spec, image_format, allow_live))
    return RawExporter(spec.removeprefix("tape://"))


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> None:
    calls.clear()
    entry = EntryPoint("tape", f"{__name__}:open_tape", opening.GROUP)
    monkeypatch.setattr(opening, "entry_points", lambda **wanted: EntryPoints([entry]).select(**wanted))


@pytest.mark.usefixtures("tape")
def test_a_third_party_adds_a_scheme(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"x")
    assert open_exporter(f"tape://{tmp_path}/t", allow_live=True).size == 1
    assert calls == [(f"tape://{tmp_path}/t", None, True)]


@pytest.mark.usefixtures("tape")
def test_a_third_party_adds_a_format(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"x")
    assert open_exporter(f"{tmp_path}/t", image_format="tape").size == 1
    assert calls == [(f"{tmp_path}/t", "tape", False)]


@pytest.mark.usefixtures("tape")
def test_a_scheme_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UsageError, match="ftp://"):
        open_exporter("ftp://host/disk")


def test_what_is_built_in_needs_no_look_at_installed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise AssertionError("entry points were read")

    monkeypatch.setattr(opening, "entry_points", refuse)
    (tmp_path / "disk.raw").write_bytes(b"x")
    open_exporter(str(tmp_path / "disk.raw")).close()


def test_a_raw_disk_is_opened_without_loading_what_images_need(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(b"x")
    program = (
        "import sys; from pipeline.exporters.open import open_exporter; open_exporter(sys.argv[1]);"
        "assert 'pipeline.nbd.client' not in sys.modules and 'subprocess' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "disk.raw")], check=True, cwd=Path(__file__).parents[2]
    )


@pytest.mark.parametrize(
    "uri",
    ["nbd://", "nbd+unix:///x", "nbds://host/x", "nbd://host:port/x", "nbd://host:99999/x", "nbd+unix://?socket="],
)
def test_a_wrong_nbd_address_is_a_mistake_of_the_user(uri: str) -> None:
    with pytest.raises(UsageError):
        open_exporter(uri)
