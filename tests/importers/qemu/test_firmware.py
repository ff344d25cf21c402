"""UEFI firmware is found by its description, else where distributions put it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from importers.qemu import firmware
from importers.qemu.firmware import Flash, find_flash

GUARDED = ["secure-boot", "enrolled-keys", "requires-smm"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without any firmware."""
    monkeypatch.setattr(firmware, "DESCRIPTIONS", (tmp_path / "etc", tmp_path / "usr"))
    monkeypatch.setattr(firmware, "KNOWN", ())
    for folder in ("etc", "usr"):
        (tmp_path / folder).mkdir()
    return tmp_path


def describe(host: Path, name: str, features: list[str], folder: str = "usr", **changes: object) -> Path:
    """A description and the files it names; the code's path."""
    code, template = host / f"{name}.code", host / f"{name}.vars"
    code.touch()
    template.touch()
    document = {
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": str(code), "format": "raw"},
            "nvram-template": {"filename": str(template), "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*", "pc-i440fx-*"]}],
        "features": features,
    }
    (host / folder / f"{name}.json").write_text(json.dumps(document | changes))
    return code


def code(*, secure: bool = False) -> Path | None:
    found = find_flash("q35", secure=secure)
    return found and found.code


def test_the_first_description_that_fits_is_used(host: Path) -> None:
    secure = describe(host, "40-secure", GUARDED)
    describe(host, "50-able", ["secure-boot", "requires-smm"])
    plain = describe(host, "60-plain", [])
    describe(host, "70-later", [])
    assert code() == plain
    assert code(secure=True) == secure


def test_a_description_in_etc_hides_its_namesake(host: Path) -> None:
    describe(host, "60-plain", [])
    (host / "etc" / "60-plain.json").touch()
    other = describe(host, "70-other", [])
    assert code() == other


@pytest.mark.parametrize(
    "changes",
    [
        {"interface-types": ["bios"]},
        {"targets": [{"architecture": "aarch64", "machines": ["virt-*"]}]},
        {"mapping": {"device": "memory", "filename": "/x"}},
        {"mapping": "nonsense"},
    ],
)
def test_what_does_not_fit_is_passed_over(host: Path, changes: dict[str, object]) -> None:
    describe(host, "60-plain", [], **changes)
    assert code() is None


def test_firmware_for_confidential_machines_is_passed_over(host: Path) -> None:
    describe(host, "60-tdx", ["intel-tdx"])
    assert code() is None


def test_a_description_of_files_that_are_gone_is_passed_over(host: Path) -> None:
    describe(host, "60-plain", []).unlink()
    assert code() is None


def test_without_descriptions_known_places_are_tried(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("c", "v"):
        (host / name).touch()
    flash = Flash(host / "c", host / "v", secure=True)
    monkeypatch.setattr(firmware, "KNOWN", (Flash(host / "gone", host / "v"), flash))
    assert find_flash("q35", secure=True) == flash
    assert find_flash("pc", secure=True) is None, "secure boot needs system management mode, which is q35's"
    assert find_flash("q35", secure=False) is None
