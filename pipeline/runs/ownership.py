"""Who may run a machine in production: a chain of epochs in the repository (FORMAT.md, section 18).

`leases/<machine>/<epoch>` is created only if absent, never changed, never deleted, and never expires. The newest epoch
is what holds. A machine without any belongs to the takeover side, which is where it runs.

    takeover --> moving --> home-provisional --> home-committed
        ^___________|_______________|___ _ _ _ _ _ |   (the last by a person, after another disaster)

A run that goes back before its claim came to be writes one more takeover: a claim that was delayed cannot come after
it. Two who want the next epoch write one key, and one of them loses. Nobody starts a machine at home but under a
home-provisional epoch of its own run, which names the proof that the other side is off and locked, or who vouched for
it; and nobody starts the takeover side again but under a takeover epoch, which names how home was proved off.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from manifests.envelope import Kind
from manifests.manifest import decode_record, encode_record
from manifests.names import lease_key, leases_prefix
from pipeline.collect.record import by
from pipeline.errors import AlreadyExists, CorruptObject, NewerFormat, RunRefused, Superseded
from pipeline.repository import Repository
from pipeline.runs.journal import create_only

Side = Literal["takeover", "moving", "home-provisional", "home-committed"]
SIDES: tuple[Side, ...] = get_args(Side)
AFTER: dict[Side, tuple[Side, ...]] = {
    "takeover": ("moving", "takeover"),
    "moving": ("home-provisional", "takeover"),
    "home-provisional": ("home-committed", "takeover"),
    "home-committed": ("takeover",),
}
"""What may follow. A machine that came home is the takeover side's again after the next disaster: a person says so."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One link. `number` 0: nobody has ever moved this machine."""

    machine: str
    number: int
    side: Side
    run: str = ""
    by: str = ""
    proof: dict[str, Any] = field(default_factory=dict)


def current(repository: Repository, machine: str) -> Epoch:
    """The newest. Raises CorruptObject for a chain with a gap: an epoch that went away was lost, not undone."""
    prefix = leases_prefix(machine)
    keys = [info.key for info in repository.store.list(prefix)]
    for number, key in enumerate(keys, 1):
        if key != lease_key(machine, number):
            raise CorruptObject(
                f"{lease_key(machine, number)} is missing, and {key} is there",
                remedy="bring it back from an older version or a copy of the bucket; nobody starts meanwhile",
            )
    if not keys:
        return Epoch(machine, 0, "takeover")
    return _read(repository, machine, len(keys))


def advance(repository: Repository, before: Epoch, side: Side, *, run: str, proof: dict[str, Any]) -> Epoch:
    """The next epoch, of `run`. Called again, after a kill or a lost answer, it finds what it made.

    Raises RunRefused when `side` cannot follow, Superseded when another run was faster.
    """
    if side not in AFTER[before.side]:
        raise RunRefused(
            f"{before.machine} is {before.side}: it cannot become {side}",
            remedy=f"`failback run list {before.machine}`",
        )
    number = before.number + 1
    key = lease_key(before.machine, number)
    record = {"format": 1, "side": side, "run": run, "by": by(), "proof": proof}
    try:
        create_only(repository, key, encode_record(Kind.RECORD, record, sealing=repository.sealing, key=key))
    except AlreadyExists:
        there = _read(repository, before.machine, number)
        if (there.side, there.run) != (side, run):
            raise Superseded(
                f"{before.machine} is {there.side} now, by run {there.run}",
                remedy=f"`failback run show {there.run}` says what it does; nothing was changed",
            ) from None
        return there
    return Epoch(before.machine, number, side, run, str(record["by"]), proof)


def _read(repository: Repository, machine: str, number: int) -> Epoch:
    key = lease_key(machine, number)
    record = decode_record(memoryview(repository.store.get(key)), Kind.RECORD, sealing=repository.sealing, key=key)
    if record.get("format") != 1:
        raise NewerFormat(f"{key} has format {record.get('format')!r}", remedy="upgrade failback on this host")
    proof = record.get("proof")
    side = next((known for known in SIDES if known == record.get("side")), None)
    if side is None or not isinstance(proof, dict):
        raise CorruptObject(f"{key} is no ownership of a machine")
    return Epoch(machine, number, side, str(record.get("run", "")), str(record.get("by", "")), proof)
