"""No interleaving of writers, forgetting and collectors loses a point; with the protocol got wrong one is found."""

from __future__ import annotations

import pytest

from model.protocol import Rules, Setting, search, wrong

ONE = Setting(("a",), forgets=1)
TWO = Setting(("a", "b"))

SETTINGS = {
    "a writer, forget": Setting(("a",), forgets=1, graces=2),
    "two writers, one takes over": Setting(("a", "b"), graces=1),
    "a writer, forget, two collectors": Setting(("a",), collectors=2, forgets=1, graces=1),
    "a writer twice delayed, forget, two collections": Setting(("a",), collections=2, forgets=1, duplicates=True),
    "bringing back, two collectors": Setting(("copy",), collectors=2, forgets=1),
    "two writers, forget": Setting(("a", "b"), forgets=1, graces=1),
    "two collectors, twice delayed": Setting(("a",), collectors=2, forgets=1, graces=1, duplicates=True),
}

PLAIN = ("clock", "tombstones", "objects")
FAULTS: dict[str, tuple[Rules, Setting]] = {
    "doomed list, wait, mark again": (
        wrong(collector=("clock", "objects", "points", "wait", "points", "delete")),
        Setting(("a",)),
    ),
    "manifests read before sessions": (
        wrong(collector=(*PLAIN, "points", "sessions", "fence", "delete")),
        Setting(("a",)),
    ),
    "no fence": (wrong(collector=(*PLAIN, "sessions", "points", "delete")), Setting(("a",))),
    "sessions not read at all": (wrong(collector=(*PLAIN, "points", "delete")), Setting(("a",))),
    "the parent is checked before the session is there": (
        wrong(writer=("check", "announce", "store", "commit", "end")),
        ONE,
    ),
    "only what is journaled is kept": (wrong(held_by_journals=True), Setting(("a",))),
    "what earlier attempts stored is not kept": (wrong(own_start=True), Setting(("a", "b"), graces=1)),
    "parents of live sessions are not kept": (wrong(parents_kept=False), ONE),
    "sessions that ended are not fenced": (wrong(fence_ended=False), Setting(("a", "b"), graces=1)),
    "void records are deleted": (wrong(voids_deleted=True), Setting(("a",), collections=2)),
    "tombstones are deleted with their manifests": (
        wrong(tombstones_deleted=True),
        Setting(("a",), forgets=1, graces=1, duplicates=True),
    ),
    "tombstones count at once": (
        wrong(
            young_tombstones=True, collector=("clock", "objects", "sessions", "fence", "tombstones", "points", "delete")
        ),
        ONE,
    ),
    "a collector goes by its own clock": (wrong(client_clock=True), Setting(("copy",), forgets=1)),
    "a point is brought back however long it was forgotten": (
        wrong(recall_unchecked=True),
        Setting(("copy",), forgets=1),
    ),
}


FENCELESS = tuple(step for step in Rules().collector if step != "fence")


def test_without_fences_nothing_is_lost_while_who_is_silent_counts_as_alive() -> None:
    way, _states = search(wrong(collector=FENCELESS, fences=False), ONE)
    assert not way, way
    way, _states = search(wrong(collector=FENCELESS, fences=False, silent_parents=False), ONE)
    assert way


@pytest.mark.parametrize("name", SETTINGS)
def test_nothing_is_lost(name: str) -> None:
    way, states = search(Rules(), SETTINGS[name])
    assert not way, way
    assert states > 5_000, "the setting has become too small to say anything"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    rules, setting = FAULTS[fault]
    way, states = search(rules, setting)
    assert way, f"nothing was lost in {states} states"
    assert way[-1].startswith("collector") or "commit" in way[-1]
