"""The JSON schema of plans, for editors. Settings of kinds are in it as far as the kinds are installed."""

from __future__ import annotations

from typing import Any

from pipeline.plans.model import Plan
from pipeline.plans.registry import CONDITIONS, TRAFFIC, condition_class, names, traffic_class


def plan_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Plan.model_json_schema()}
    schema["title"] = "A plan of failback"
    definitions = schema["$defs"]
    for owner, group, find in (
        ("Condition", CONDITIONS, condition_class),
        ("TrafficStep", TRAFFIC, traffic_class),
    ):
        kinds = names(group)
        definitions[owner]["properties"]["kind"]["examples"] = kinds
        choices = []
        for kind in kinds:
            own = find(kind).Settings.model_json_schema(ref_template=f"#/$defs/{owner}.{kind}.{{model}}")
            for name, inner in own.pop("$defs", {}).items():
                definitions[f"{owner}.{kind}.{name}"] = inner
            definitions[f"{owner}.{kind}"] = own
            is_kind = {"properties": {"kind": {"const": kind}}, "required": ["kind"]}
            choices.append({"if": is_kind, "then": {"properties": {"settings": {"$ref": f"#/$defs/{owner}.{kind}"}}}})
        if choices:
            definitions[owner]["allOf"] = choices
    return schema
