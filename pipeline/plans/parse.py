"""From YAML to a plan in which everything agrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.errors import UsageError
from pipeline.plans.agree import check_kinds, check_structure
from pipeline.plans.document import read_yaml
from pipeline.plans.model import Plan
from pipeline.plans.refused import keys_of, refused
from pipeline.plans.secrets import check_secrets


def read_plan(where: str) -> tuple[Plan, dict[str, Any]]:
    """As `parse_text`, of a file."""
    try:
        text = Path(where).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UsageError(f"{where} cannot be read: {reason}", remedy="check the name and its rights") from None
    return parse_text(text, where=where)


def parse_text(text: str, *, where: str) -> tuple[Plan, dict[str, Any]]:
    """The plan, and the document as `pipeline.plans.stored` takes it. Raises UsageError that names `where`, the key,
    and what is allowed."""
    document = read_yaml(text, where=where)
    return parse_plan(document, where=where), document


def parse_plan(document: Any, *, where: str, installed: bool = True) -> Plan:
    """A plan from what YAML or JSON held. `installed`: its kinds have to be here, and are asked about their settings.
    Raises UsageError as `parse_text`."""
    if not isinstance(document, dict):
        raise UsageError(f"{where} is no plan", remedy=f"write names and values; keys are {keys_of(Plan)}")
    check_secrets(document, where)
    try:
        plan = Plan.model_validate(document)
    except ValidationError as error:
        raise refused(error, Plan, where) from None
    check_structure(plan, where)
    if installed:
        check_kinds(plan, where)
    return plan
