"""What a later version announces is refused by this one, at the cost of one listing."""

from __future__ import annotations

import pytest

from manifests.errors import NewerFormat
from pipeline.repository import Repository
from pipeline.store.base import Store
from pipeline.store.memory import MemoryStore


def test_a_repository_with_an_unknown_feature_is_refused_by_name(store: Store) -> None:
    Repository.init(store)
    Repository.open(store)
    store.put("features/relocations", b"", create=True)
    store.put("features/dictionaries", b"", create=True)
    with pytest.raises(NewerFormat, match="dictionaries"):
        Repository.open(store)


def test_opening_costs_one_read_and_one_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryStore()
    Repository.init(memory)
    asked: list[str] = []
    for verb in ("get", "get_range", "head", "list", "put"):
        real = getattr(memory, verb)
        monkeypatch.setattr(memory, verb, lambda *a, _v=verb, _r=real, **k: asked.append(_v) or _r(*a, **k))
    Repository.open(memory)
    assert asked == ["get", "list"]
