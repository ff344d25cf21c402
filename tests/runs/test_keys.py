"""Whose keys conduct runs in an encrypted repository, and whose word is believed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.errors import KeyRefused
from pipeline.keys.locks import KeyFile
from pipeline.keys.ring import put_slot, remove_slot, revoke
from pipeline.keys.signed import signed_by
from pipeline.repository import Repository
from pipeline.runs.decide import Ask, Over
from pipeline.runs.ownership import current
from runs.conftest import MACHINES, Disaster, WatchedStore

Make = Callable[..., Disaster]


class Encrypted:
    """The disaster's repository with keys, and others who open it."""

    def __init__(self, d: Disaster) -> None:
        self.d = d
        self.store = d.store = WatchedStore()
        Repository.init(self.store, lock=KeyFile(d.root / "admin"))
        self.admin = Repository.open(self.store, lambda: [KeyFile(d.root / "admin")])
        d.repository = self.admin

    def key(self, role: str) -> Repository:
        assert self.admin.opened is not None
        lock = KeyFile(self.d.root / role)
        put_slot(self.store, self.admin.document, self.admin.opened.ring, lock, role=role, label=role, create=True)
        return Repository.open(self.store, lambda: [lock])


@pytest.fixture
def encrypted(disaster: Make) -> Encrypted:
    return Encrypted(disaster())


def test_a_conductors_key_brings_a_group_home(encrypted: Encrypted) -> None:
    d = encrypted.d
    d.begin()
    d.repository = encrypted.key("conductor")
    assert isinstance(d.conduct(), Ask)
    d.tell("approve")
    assert d.conduct() == Over("committed")
    assert all(current(encrypted.admin, name).side == "home-committed" for name in MACHINES)


def test_a_conductors_key_makes_no_keys_and_forgets_nothing(encrypted: Encrypted) -> None:
    opened = encrypted.key("conductor").opened
    assert opened is not None
    assert opened.ring.root_private is None
    assert opened.ring.writer is not None
    assert opened.ring.writer.certificate.roles == 3


def test_what_a_conductor_signed_stays_good_when_its_key_is_removed(encrypted: Encrypted) -> None:
    d = encrypted.d
    d.begin()
    d.repository = encrypted.key("conductor")
    d.conduct()
    opened, admin = d.repository.opened, encrypted.admin.opened
    assert opened is not None
    assert admin is not None
    document = encrypted.admin.document
    revoke(encrypted.store, document, admin.ring, opened.slot, signed_by(encrypted.admin, opened.slot), create=True)
    remove_slot(encrypted.store, document, opened.slot)
    d.repository = Repository.open(encrypted.store, lambda: [KeyFile(d.root / "admin")])
    d.tell("approve")
    assert d.conduct() == Over("committed")


def test_an_importers_key_speaks_in_a_journal_and_an_exporters_does_not(encrypted: Encrypted) -> None:
    d = encrypted.d
    d.begin()
    d.conduct()
    d.repository = encrypted.key("exporter")
    with pytest.raises(KeyRefused):
        d.tell("approve")
    d.repository = encrypted.key("importer")
    d.tell("approve")
    d.repository = encrypted.admin
    assert d.conduct() == Over("committed")
