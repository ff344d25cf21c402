"""What the README says of the options and the role is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from importers.vmware.options import VmwareOptions, WorkerOptions, parse_options
from importers.vmware.privileges import ROLE

README = Path(__file__).parents[3] / "README.md"


def section() -> str:
    text = README.read_text(encoding="utf-8")
    return text[text.index("#### VMware") : text.index("To write an importer or a hook of your own")]


def test_every_option_is_in_the_table() -> None:
    rows = [line for line in section().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    assert set(VmwareOptions.model_fields) <= named
    [worker] = [row for row in rows if row.startswith("| `worker`")]
    assert set(WorkerOptions.model_fields) == set(re.findall(r"`([a-z_]+)`", worker.split("|")[2]))


def test_every_privilege_is_in_the_table_and_starred_when_it_is_documented() -> None:
    text = section()
    for privilege in ROLE:
        name = privilege.id.rpartition(".")[2]
        star = r"`?\*" if privilege.method else r"`?(?!\*)"
        assert re.search(rf"\b{name}{star}", text), privilege


def test_the_example_can_be_read() -> None:
    import yaml

    example = section().split("    options:\n")[1].split("\n\n")[0]
    values = yaml.safe_load("    options:\n" + example)["options"]["vmware"]
    values["fingerprint"] = "00" * 32
    assert parse_options(values).cluster == "Production"
