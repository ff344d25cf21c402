"""Who may run a machine: one chain, and of two who want its next link one loses, on every kind of store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from pipeline.errors import CorruptObject, RunRefused, Superseded
from pipeline.plans.model import Plan
from pipeline.plans.stored import put
from pipeline.repository import Repository
from pipeline.runs.begin import begin
from pipeline.runs.ownership import Epoch, advance, current
from pipeline.store.address import parse_address
from pipeline.store.memory import MemoryStore
from pipeline.store.open import open_store
from runs.conftest import DOCUMENT

RACERS = 6


@pytest.fixture
def repository() -> Repository:
    return Repository.init(MemoryStore())


def test_of_conductors_that_race_for_an_epoch_one_wins(address: str) -> None:
    repositories = [Repository.init(open_store(parse_address(address)))]
    repositories += [Repository.open(open_store(parse_address(address))) for _ in range(RACERS - 1)]
    ready = Barrier(RACERS)

    def race(number: int) -> Epoch | None:
        before = current(repositories[number], "db")
        ready.wait()
        try:
            return advance(repositories[number], before, "moving", run=f"run-{number}", proof={})
        except Superseded:
            return None

    with ThreadPoolExecutor(RACERS) as pool:
        won = [epoch for epoch in pool.map(race, range(RACERS)) if epoch is not None]
    assert len(won) == 1
    assert all(current(repository, "db") == won[0] for repository in repositories)


def test_an_epoch_whose_answer_was_lost_is_found_again(repository: Repository) -> None:
    before = current(repository, "db")
    first = advance(repository, before, "moving", run="a", proof={})
    assert advance(repository, before, "moving", run="a", proof={}) == first
    with pytest.raises(Superseded, match="by run a"):
        advance(repository, before, "moving", run="b", proof={})


def test_a_side_follows_only_where_it_may(repository: Repository) -> None:
    moving = advance(repository, current(repository, "db"), "moving", run="a", proof={})
    with pytest.raises(RunRefused):
        advance(repository, moving, "home-committed", run="a", proof={})
    with pytest.raises(RunRefused):
        advance(repository, current(repository, "web"), "home-provisional", run="a", proof={})


def test_a_chain_with_a_gap_says_nothing(repository: Repository) -> None:
    moving = advance(repository, current(repository, "db"), "moving", run="a", proof={})
    advance(repository, moving, "takeover", run="a", proof={})
    repository.store.delete_many(["leases/db/0000000001"])
    with pytest.raises(CorruptObject, match="0000000001 is missing"):
        current(repository, "db")


def test_a_store_without_conditional_put_refuses_a_cutover_that_asks_nobody(repository: Repository) -> None:
    repository.document = replace(
        repository.document, abilities={**repository.document.abilities, "conditional_put": False}
    )
    plan = Plan.model_validate(DOCUMENT)
    stored, _fresh = put(repository, plan, plan.model_dump(mode="json"))
    with pytest.raises(RunRefused, match="two conductors could both believe"):
        begin(repository, stored)
    asking = Plan.model_validate(DOCUMENT | {"approvals": {"cutover": True}})
    stored, _fresh = put(repository, asking, asking.model_dump(mode="json"))
    assert begin(repository, stored).fresh
