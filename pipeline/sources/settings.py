"""What a plan says of a machine for a source, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from manifests.machine import Model
from pipeline.errors import UsageError

M = TypeVar("M", bound=Model)


def parse_settings(model: type[M], values: Mapping[str, Any], *, kind: str, of: str) -> M:
    """`of`: whose settings these are, for messages. Raises UsageError that names what is wrong."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{of}: the settings for the source {kind} are wrong{f' at {place}' if place else ''}: {first['msg']}",
            remedy=f"correct them in the plan; known are {', '.join(model.model_fields)}",
        ) from None
