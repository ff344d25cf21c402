"""Effects by their verbs."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.runs.effects import reading, sides, target, traffic
from pipeline.runs.effects.job import Job, Result

VERBS: dict[str, Callable[[Job], Result]] = {
    "preflight": target.preflight,
    "export": reading.export,
    "stage": target.stage,
    "rehearse": target.rehearse,
    "catchup": target.catch_up,
    "claim": sides.claim,
    "quiesce": sides.quiesce,
    "final": reading.final,
    "stop": sides.stop,
    "prove": sides.prove,
    "lock": sides.lock,
    "set": reading.make_set,
    "refresh": target.refresh,
    "own": sides.own,
    "boot": target.boot,
    "verify": target.verify,
    "clock": target.clock,
    "open": traffic.open_step,
    "green": target.green,
    "commit": sides.commit,
    "retire": sides.retire,
    "close": traffic.close_step,
    "halt": target.halt,
    "return": sides.give_back,
    "restart": sides.restart,
}
"""In the order in which a run comes to them, and then those of the way back."""
