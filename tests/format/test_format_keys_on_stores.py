"""Every key the format can make is taken by every kind of store, signatures included."""

from __future__ import annotations

import pytest

from manifests.names import decode_machine, journal_key, manifest_key, tombstone_key
from pipeline.store.base import Store

NAMES = ["Web 1", "täglich", "a+b=c&d?e#f", "100%", ".hidden.", "~x", "C:*", "日本語", "!", "A" * 100]


@pytest.mark.parametrize("name", NAMES)
def test_keys_of_a_machine_are_put_read_listed_and_deleted(store: Store, name: str) -> None:
    keys = [
        manifest_key(name, 1),
        manifest_key(name, 2),
        tombstone_key(name, 1),
        journal_key(name, "0000000002-0001", 0),
    ]
    for key in keys:
        store.put(key, key.encode(), create=True)
    for key in keys:
        assert bytes(store.get(key)) == key.encode()
        assert bytes(store.get_range(key, 1, 3)) == key.encode()[1:4]
        info = store.head(key)
        assert info is not None
        assert info.size == len(key)
    assert [info.key for info in store.list(keys[0][:-10])] == keys[:2]
    assert [info.key for info in store.list(keys[0][:-10], after=keys[0])] == keys[1:2]
    assert {decode_machine(info.key.split("/")[1]) for info in store.list("manifests/")} == {name}
    store.delete_many(keys)
    assert [info.key for info in store.list("manifests/")] == []


def test_machines_side_by_side_are_told_apart(store: Store) -> None:
    for name in NAMES:
        store.put(manifest_key(name, 1), b"x", create=True)
    parts = [info.key.split("/")[1] for info in store.list("manifests/")]
    assert parts == sorted(parts)
    assert {decode_machine(part) for part in parts} == set(NAMES)
