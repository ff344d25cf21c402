"""What is wrong with a document, in words: the key, the reason, and what is allowed there."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pipeline.errors import UsageError


def refused(error: ValidationError, model: type[BaseModel], where: str, *, at: str = "") -> UsageError:
    """One error for up to four problems. `at`: where in `where` the document of `model` stands."""
    found = error.errors(include_url=False, include_input=False)
    # What is misspelt comes first: it is why something else is missing.
    found.sort(key=lambda e: e["type"] != "extra_forbidden")
    problems = [_problem(e["loc"], e["type"], e["msg"], model, at) for e in found]
    texts = list(dict.fromkeys(text for text, _remedy in problems))
    more = f"; and {len(texts) - 4} more" if len(texts) > 4 else ""
    return UsageError(f"{where}: {'; '.join(texts[:4])}{more}", remedy=problems[0][1])


def keys_of(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields) or "none"


def _problem(path: Sequence[int | str], kind: str, text: str, model: type[BaseModel], at: str) -> tuple[str, str]:
    parts = [part for part in path if part != "[key]"]
    shown = at + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    shown = shown.removeprefix(".") or "the document"
    if kind == "extra_forbidden":
        return f"{shown} is not known", f"known there are {keys_of(_model_at(model, parts[:-1]))}"
    if kind == "missing":
        return f"{shown} is missing", f"keys there are {keys_of(_model_at(model, parts[:-1]))}"
    reason = text.removeprefix("Value error, ")
    return (
        f"{shown}: {reason[:1].lower() + reason[1:]}",
        "correct the value; `failback plan schema` says what is allowed",
    )


def _model_at(model: type[BaseModel], parts: Sequence[int | str]) -> type[BaseModel]:
    """The model of the value at `parts`; the nearest above it when that is no model."""
    found: Any = model
    nearest = model
    for part in parts:
        found = _inner(found, part)
        if isinstance(found, type) and issubclass(found, BaseModel):
            nearest = found
    return nearest


def _inner(kind: Any, part: int | str) -> Any:
    """The type of one value in a value of type `kind`, without what annotates it."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(part))
        return _bare(field.annotation) if field else None
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return _bare(arguments[1])
    if get_origin(kind) in (tuple, list):
        return _bare(arguments[0])
    return None


def _bare(kind: Any) -> Any:
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, types.UnionType):
            kind = next(a for a in get_args(kind) if a is not type(None))
        else:
            return kind
