"""What the README says of the source's settings is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from importers.qemu.source_settings import QemuSettings
from pipeline.sources.settings import parse_settings

README = Path(__file__).parents[3] / "README.md"


def section() -> str:
    text = README.read_text(encoding="utf-8")
    return text[text.index("`qemu` takes machines that run in QEMU") : text.index("### Agents")]


def test_every_setting_of_the_source_is_in_the_table() -> None:
    rows = [line for line in section().splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])]
    assert sorted(named) == sorted(QemuSettings.model_fields)


def test_the_example_is_one() -> None:
    example = "\n".join(line for line in section().splitlines() if line.startswith("    "))
    settings = yaml.safe_load(example)["db"]["source"]
    assert parse_settings(QemuSettings, settings, kind="qemu", of="db").unlock is not None
