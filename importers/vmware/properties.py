"""Leaf properties through the PropertyCollector: one call for many objects, and only what is asked for.

Whole objects (`vm.runtime`, `vm.summary`) are slow on a real vCenter, and pyvmomi refuses them when the server leaves
out what its types call required.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyVmomi import vim, vmodl

from importers.vmware.connection import Connection

PAGE = 200
"""Objects in one answer."""
_Query = vmodl.query.PropertyCollector

Values = Mapping[str, Any]
"""By path; a property that is unset, or that we may not see, is missing."""


def values_of(connection: Connection, thing: Any, *paths: str) -> Values:
    """Of one object. Raises TargetMismatch when it is gone."""
    return values_of_all(connection, [thing], *paths)[0]


def values_of_all(connection: Connection, things: Sequence[Any], *paths: str) -> list[Values]:
    """Of several objects of one kind, in their order. Raises TargetMismatch when one is gone."""
    if not things:
        return []
    kind = type(things[0])
    found = dict(_retrieve(connection, [_Query.ObjectSpec(obj=t) for t in things], kind, paths))
    return [found.get(thing, {}) for thing in things]


def children(connection: Connection, root: Any, kind: Any, *paths: str) -> list[tuple[Any, Values]]:
    """All objects of a kind anywhere below `root` that we may see, with properties."""
    content = connection.content

    def look() -> list[tuple[Any, Values]]:
        view = content.viewManager.CreateContainerView(root, [kind], True)
        try:
            through = _Query.TraversalSpec(name="view", path="view", skip=False, type=vim.view.ContainerView)
            start = _Query.ObjectSpec(obj=view, skip=True, selectSet=[through])
            return _pages(connection, [start], kind, paths)
        finally:
            view.DestroyView()

    return connection.ask(look, f"cannot list what is there at {connection.name}")


def _retrieve(
    connection: Connection, objects: Sequence[Any], kind: Any, paths: Iterable[str]
) -> list[tuple[Any, Values]]:
    return connection.ask(lambda: _pages(connection, objects, kind, paths), f"cannot read from {connection.name}")


def _pages(connection: Connection, objects: Sequence[Any], kind: Any, paths: Iterable[str]) -> list[tuple[Any, Values]]:
    what = _Query.PropertySpec(type=kind, pathSet=list(paths), all=False)
    collector = connection.collector()
    answer = collector.RetrievePropertiesEx(
        [_Query.FilterSpec(objectSet=list(objects), propSet=[what])], _Query.RetrieveOptions(maxObjects=PAGE)
    )
    found: list[tuple[Any, Values]] = []
    while answer is not None:
        found += [(seen.obj, {p.name: p.val for p in seen.propSet or []}) for seen in answer.objects]
        answer = collector.ContinueRetrievePropertiesEx(answer.token) if answer.token else None
    return found
