"""The key of a writer is removed while it writes, or after its export failed: nothing of it stands in anybody's way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from transfer.support import CHUNK, Workbench, poke

from collect.support import DAY, HOUR, Yard
from manifests.names import manifest_key
from pipeline.errors import KeyRefused
from pipeline.keys.locks import KeyFile
from pipeline.keys.ring import put_slot, revoke
from pipeline.progress import Counters
from pipeline.repository import Repository


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


def stranger(yard: Yard, tmp_path: Path) -> tuple[Workbench, Callable[[], None]]:
    """(a host with an exporter's key, removes that key)."""
    repository, lock = yard.repository, KeyFile(tmp_path / "other key")
    slot = put_slot(
        yard.store, repository.document, repository.sealing.ring, lock, role="exporter", label="b", create=True
    )
    host = yard.bench.elsewhere("b")
    host.repository = Repository.open(yard.store, lambda: [lock])

    def remove() -> None:
        revoke(yard.store, repository.document, repository.sealing.ring, slot, [], create=True)
        yard.bench.repository = Repository.open(yard.store, lambda: [KeyFile(tmp_path / "key")])

    return host, remove


def test_a_failed_export_does_not_stop_collections_when_its_key_is_removed(yard: Yard, tmp_path: Path) -> None:
    yard.bench.export(yard.source)
    host, remove = stranger(yard, tmp_path)

    def fail(_counters: Counters) -> None:
        raise RuntimeError

    poke(yard.source, CHUNK, os.urandom(CHUNK))
    with pytest.raises(RuntimeError):
        host.export(yard.source, watch=fail)
    assert [key for key in yard.keys("sessions/vm/0000000002") if key.endswith("/ended")]
    remove()
    yard.wait(3 * DAY)
    assert yard.collect().fenced == ["vm@2"]
    yard.wait(3 * DAY)
    yard.collect()
    assert not yard.keys("sessions/vm/0000000002")
    yard.bench.verified(1)


def test_an_export_whose_key_was_removed_meanwhile_commits_nothing(yard: Yard, tmp_path: Path) -> None:
    """Or it would end well with a point that nobody believes, and that no increment builds on."""
    yard.bench.export(yard.source)
    host, remove = stranger(yard, tmp_path)
    removed: list[str] = []

    def meanwhile(_counters: Counters) -> None:
        if not removed:
            removed.append("once")
            remove()

    poke(yard.source, CHUNK, os.urandom(CHUNK))
    with pytest.raises(KeyRefused, match="vm@2") as caught:
        host.export(yard.source, watch=meanwhile)
    assert caught.value.remedy
    assert yard.keys("manifests/") == [manifest_key("vm", 1)]
    yard.wait(HOUR)
    assert yard.bench.export(yard.source).sequence == 2
    yard.bench.verified(2)
