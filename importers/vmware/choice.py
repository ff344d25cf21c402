"""One of several objects: by name, or because there is only one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from pipeline.errors import TargetError

MOST_NAMES = 20


class Named(Protocol):
    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


class NoChoice(TargetError):
    """What was named is not there, or what was not named is not clear."""


def choose(kind: str, name: str, there: Sequence[N], *, where: str, key: str) -> N:
    """The one called `name`; empty: the only one. `kind`: "cluster", `where`: "in the datacenter Home", `key`: what
    the mapping says it with. Raises NoChoice, which says what there is."""
    found = [thing for thing in there if not name or thing.name == name]
    if len(found) == 1:
        return found[0]
    shown = _names(there)
    if not there:
        called = f" called {name!r}" if name else ""
        raise NoChoice(
            f"there is no {kind}{called} {where}; there is none at all that we may see",
            remedy="create one, or give the user rights on it",
        )
    if not found:
        close = [t.name for t in there if t.name.casefold() == name.casefold()]
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise NoChoice(f"there is no {kind} called {name!r} {where}", remedy=f"{hint}there are: {shown}")
    if name:
        raise NoChoice(
            f"{len(found)} of them are called {name!r}: {kind} {where}", remedy="rename one of them, or give its path"
        )
    raise NoChoice(
        f"nothing says which {kind} is to be taken {where}",
        remedy=f"write `{key}: NAME` in the mapping; there are: {shown}",
    )


def _names(there: Sequence[Named]) -> str:
    names = sorted({thing.name for thing in there})
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(map(repr, names[:MOST_NAMES])) + more
