"""What is written as YAML reads back as it was."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.plans.difference import Difference, differences
from pipeline.plans.document import read_yaml, write_yaml
from pipeline.plans.model import Plan
from plans.conftest import shop

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12) | st.sampled_from(
    ["on", "no", "1e3", "0o17", "010", "22:00", "2026-12-24", "~", "", "=", "<<", "0x1", ".inf", "1_000", "- a", "&a"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_any_document_comes_back(document: dict[str, Any]) -> None:
    assert read_yaml(write_yaml(document), where="test") == document


def test_plans_are_written_in_the_order_of_their_keys() -> None:
    assert [line.split(":")[0] for line in write_yaml(dict(reversed(shop().items()))).splitlines() if line[0] != " "][
        :4
    ] == ["name", "target", "mapping", "source"]


def test_differences_are_named_by_their_keys() -> None:
    check = {"name": "answers", "hook": "tcp", "settings": {"port": 1}}
    old = Plan.model_validate(shop(machines={"db": {"checks": [check]}, "web-1": {}, "web-2": {}}))
    changed = check | {"settings": {"port": 2}}
    new = Plan.model_validate(
        shop(
            machines={"db": {"checks": [changed, check | {"name": "more"}]}, "web-1": {}},
            approvals={"valid": "28800s"},
            on_failure="rollback",
        )
    )
    found = {difference.at: difference for difference in differences(old, new)}
    assert found["machines.db.checks.answers.settings.port"] == Difference(
        "machines.db.checks.answers.settings.port", 1, 2
    )
    assert found["machines.db.checks.more"].old is None
    assert found["machines.web-2"].new is None
    assert found["on_failure"].new == "rollback"
    assert len(found) == 4
    assert differences(old, old) == []
