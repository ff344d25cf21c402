"""Key slots, sessions and small records are scrubbed too; damage of them is named with what to do, and is no loss."""

from __future__ import annotations

from fractions import Fraction

import pytest
from transfer.support import Workbench

from mend.bench import filled, flip
from pipeline.collect.collector import Collection
from pipeline.collect.record import hold, record_verification
from pipeline.mend.damage import Damage, record_damage
from pipeline.mend.findings import find_harm
from pipeline.mend.needs import needs_of_all
from pipeline.mend.notes import NOTES, check_notes
from pipeline.mend.progress import Notebook
from pipeline.mend.repair import repair
from pipeline.mend.scrub import scrub_by_id
from pipeline.plans.model import Plan
from pipeline.plans.stored import put as put_plan

PLAN = Plan.model_validate(
    {
        "name": "shop",
        "target": "qemu",
        "source": {"kind": "qemu"},
        "machines": {"vm": {}},
        "groups": [{"name": "shop", "waves": [["vm"]]}],
    }
)


def used(bench: Workbench) -> None:
    """A repository in which there is something in every place."""
    filled(bench)
    record_verification(bench.repository, bench.point(1), "read")
    hold(bench.repository, bench.point(1), holder="tests", reason="needed")
    put_plan(bench.repository, PLAN, PLAN.model_dump(mode="json", exclude_defaults=True))
    Collection(bench.repository, apply=True).run()
    record_damage(bench.repository, Damage(f"packs/ab/{'ab' * 32}", "missing", "long ago"))


@pytest.mark.parametrize("place", sorted(NOTES))
def test_damage_is_named_with_its_remedy_and_is_no_loss(bench: Workbench, place: str) -> None:
    used(bench)
    ring = bench.repository.sealing.ring
    assert ring is not None
    assert check_notes(bench.store, root=ring.root) == []
    for key in [info.key for info in bench.store.list(place)]:
        flip(bench.store, key, len(bench.store.get(key)) // 2)
        [damage] = check_notes(bench.store, root=ring.root)
        assert damage.key == key
        assert damage.detail.endswith(NOTES[place])
        flip(bench.store, key, len(bench.store.get(key)) // 2)
    flip(bench.store, key, len(bench.store.get(key)) // 2)
    needs = needs_of_all(bench.repository)
    notebook = Notebook(bench.state, bench.repository.document.id, "id", None)
    report = scrub_by_id(bench.store, notebook, share=Fraction(1), most=None, root=ring.root)
    findings = find_harm(bench.repository, report, needs)
    assert [d.key for d in findings.open] == [key]
    assert findings.harms == []


def test_without_a_key_what_is_broken_is_seen_and_who_wrote_it_is_not(bench: Workbench) -> None:
    used(bench)
    [slot] = [info.key for info in bench.store.list("keys/")]
    data = bytes(bench.store.get(slot))
    bench.store.put(slot, data.replace(b'"label": "first"', b'"label": "forged"'))
    ring = bench.repository.sealing.ring
    assert ring is not None
    assert [d.key for d in check_notes(bench.store, root=ring.root)] == [slot]
    assert check_notes(bench.store) == []
    bench.store.put(slot, data[:-20])
    assert [d.key for d in check_notes(bench.store)] == [slot]


def test_a_repair_leaves_them_alone(bench: Workbench) -> None:
    used(bench)
    [key] = [info.key for info in bench.store.list("holds/")]
    flip(bench.store, key, 20)
    broken = bytes(bench.store.get(key))
    assert repair(bench.repository).put_back == []
    assert bytes(bench.store.get(key)) == broken
