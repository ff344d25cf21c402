"""What two plans say differently, key by key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.plans.model import Plan


@dataclass(frozen=True, slots=True)
class Difference:
    """At a key: None where a plan has nothing there. Items of lists that have names are known by these."""

    at: str
    old: Any
    new: Any


def differences(old: Plan, new: Plan) -> list[Difference]:
    """By what plans mean: defaults count as said, and one duration written in two ways is one."""
    return list(_between(old.model_dump(mode="json"), new.model_dump(mode="json"), ""))


def _between(old: Any, new: Any, at: str) -> Iterator[Difference]:
    if old == new:
        return
    both = (old, new)
    if all(isinstance(value, list) and value and all(_named(item) for item in value) for value in both):
        if [i["name"] for i in old if i in new] != [i["name"] for i in new if i in old]:
            yield Difference(f"{at} (order)", [item["name"] for item in old], [item["name"] for item in new])
        old, new = ({item["name"]: item for item in value} for value in both)
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _between(old.get(key), new.get(key), f"{at}.{key}".lstrip("."))
        return
    yield Difference(at, old, new)


def _named(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str)
