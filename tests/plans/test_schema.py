"""The published schema says what we take, and its copy for editors is the one that is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

import pipeline.plans
from pipeline.plans.parse import parse_plan, read_plan
from pipeline.plans.schema import plan_schema
from plans.conftest import shop

FOLDER = Path(pipeline.plans.__file__).parent


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    found = plan_schema()
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


def test_the_copy_for_editors_is_the_schema() -> None:
    kept = json.loads((FOLDER / "plan.schema.json").read_text())
    assert kept == plan_schema(), "`failback plan schema > pipeline/plans/plan.schema.json` writes it anew"


def test_the_example_is_a_plan(schema: Draft202012Validator) -> None:
    path = FOLDER / "example.yaml"
    plan, document = read_plan(str(path))
    schema.validate(document)
    assert plan.group_of("web-2").machines == ("db", "web-1", "web-2")
    assert path.read_text().splitlines()[1] == "# yaml-language-server: $schema=plan.schema.json"


@pytest.mark.parametrize(
    "changed",
    [
        {"deadlines": {"conditions": "14d", "downtime": 1800}},
        {
            "mapping": {
                "memory": "4GiB",
                "networks": {"a": "lan", "b": None, "*": {"isolated": True}},
                "disks": {"0": {}},
            }
        },
        {"conditions": [{"name": "a", "kind": "delta", "settings": {"smaller": "1GiB", "machines": ["db"]}}]},
        {"groups": [{"name": "shop", "waves": [["db"], ["web-1", "web-2"]], "after": []}]},
    ],
)
def test_what_we_take_the_schema_takes(schema: Draft202012Validator, changed: dict[str, Any]) -> None:
    parse_plan(shop(**changed), where="test")
    schema.validate(shop(**changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"nmae": "x"},
        {"name": "Shop"},
        {"deadlines": {"downtime": "soon"}},
        {"on_failure": "give up"},
        {"groups": [{"name": "shop", "waves": [[]]}]},
        {"approvals": {"cutovr": True}},
        {"conditions": [{"name": "a", "kind": "delta", "settings": {"smaler": "1GiB"}}]},
        {"conditions": [{"name": "a", "kind": "window", "settings": {"times": []}}]},
        {"groups": [{"name": "s", "waves": [["db"]], "traffic": [{"name": "t", "kind": "command", "settings": {}}]}]},
    ],
)
def test_what_we_refuse_by_its_shape_the_schema_refuses(schema: Draft202012Validator, changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        schema.validate(shop(**changed))


def test_editors_are_told_what_keys_mean() -> None:
    found = plan_schema()
    assert found["$defs"]["Deadlines"]["properties"]["downtime"]["description"].startswith("From the first machine's")
    assert {"flag", "window"} <= set(found["$defs"]["Condition"]["properties"]["kind"]["examples"])
