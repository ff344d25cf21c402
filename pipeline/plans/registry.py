"""Conditions, traffic steps and sources by name, ours and those of other packages: entry points."""

from __future__ import annotations

from typing import Any

from pipeline.plans.condition import Look
from pipeline.plans.traffic import Gate
from pipeline.plugins import installed, load
from pipeline.sources.registry import GROUP as SOURCES

__all__ = ["CONDITIONS", "SOURCES", "TRAFFIC", "condition_class", "names", "traffic_class"]

CONDITIONS = "failback.conditions"
TRAFFIC = "failback.traffic"
names = installed


def condition_class(name: str) -> type[Look[Any]]:
    """Raises UsageError when no installed package has it, when several have, or when it cannot be loaded."""
    kind: type[Look[Any]] = load(
        CONDITIONS, name, what="a condition", unknown=f"{name!r} is no kind of condition", base=Look
    )
    return kind


def traffic_class(name: str) -> type[Gate[Any]]:
    """Raises UsageError as `condition_class`."""
    kind: type[Gate[Any]] = load(
        TRAFFIC, name, what="a traffic step", unknown=f"{name!r} is no kind of traffic step", base=Gate
    )
    return kind
