"""One agent as its controller sees it: give an order, wait for what comes of it, give it up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from blake3 import blake3
from pydantic import BaseModel

from manifests.mail import bell_key, order_key
from pipeline import errors
from pipeline.agent.clock import StoreClock, as_text, from_text
from pipeline.agent.known import Known, Pairing, Sent
from pipeline.agent.orders import (
    Alive,
    Bell,
    Check,
    Held,
    Keys,
    Nothing,
    Order,
    PointDisk,
    Receive,
    Report,
    Stop,
    Verb,
)
from pipeline.agent.post import Post
from pipeline.catalogue import Point
from pipeline.errors import AgentError, AgentSilent, Cancelled, FailbackError, KeyRefused, UsageError
from pipeline.progress import Counters
from pipeline.repository import Repository
from pipeline.target import Control

LIFETIME = 600.0
"""Seconds in which an order has to be accepted."""
SILENCE = 180.0
"""Seconds without a sign of life (one comes each minute) after which nobody waits any more."""
ATTEND = 120.0
ATTEMPTS = 5
"""How often an order that was surely not done is given again within one call."""
_SIGNS = 5.0
"""Seconds between looks at the sign of life while an order is waited for."""
_NOT_DONE = ("stale", "expired", "missing", "foreign", "replayed")
"""Refusals after which the same order may be given anew: nothing was done."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An order that was done. Seconds: `waited` in all by the controller, `accepted` until it knew of the acceptance
    (None: only the end was seen, or an earlier call had given the order)."""

    report: Report
    waited: float
    accepted: float | None = None

    @property
    def steps(self) -> dict[str, float]:
        """Where the time went, `waited` in all: the agent's steps, and what is left of the wait. `pick_up` is by our
        own clock where that saw the acceptance."""
        work = {step: seconds for step, seconds in self.report.steps.items() if step != "pick_up"}
        left = max(self.waited - sum(work.values()), 0.0)
        told = self.report.steps.get("pick_up", 0.0)
        picked = min(told if self.accepted is None else self.accepted, left)
        return {"pick_up": round(picked, 3), **work, "mail": round(left - picked, 3)}


def order_id(*parts: object) -> str:
    """The id of an order from what it is about, such as a place's marker, a point and a disk. The same parts are the
    same order: once done it is not done again."""
    return blake3("\n".join(map(str, parts)).encode(), derive_key_context="failback 2026 order id v1").hexdigest(16)


def point_disk(point: Point, number: int) -> PointDisk:
    """One disk of a point, pinned. Raises UsageError when it has no such disk."""
    for disk in point.manifest.disks:
        if disk.number == number:
            manifest = point.manifest
            return PointDisk(
                machine=manifest.machine.name,
                sequence=manifest.sequence,
                number=number,
                manifest=point.object_hash,
                digest=disk.digest,
            )
    raise UsageError(f"{point.manifest.label} has no disk {number}")


class Remote:
    """Made by `Agents.agent`. Every call may be made again after whatever interrupted it: an order that was given
    under an id is found, and waited for."""

    def __init__(
        self,
        repository: Repository,
        known: Known,
        pairing: Pairing,
        post: Post,
        control: Control,
        *,
        sleep: Callable[[float], None] = time.sleep,
        silence: float = SILENCE,
    ) -> None:
        self.agent = pairing.agent
        self.repository = repository
        self.silence = silence
        self._known = known
        self._post = post
        self._control = control
        self._sleep = sleep
        self._clock = StoreClock()

    # -- orders ----------------------------------------------------------------------------------------------------

    def inventory(self) -> list[dict[str, Any]]:
        """The agent's disks as they are now (pipeline.agent.disks.FoundDisk)."""
        now = time.time_ns()
        disks: list[dict[str, Any]] = self.perform(order_id("inventory", now), "inventory", Nothing()).report.result[
            "disks"
        ]
        return disks

    def receive(self, order: str, params: Receive) -> Outcome:
        """Make a disk equal a point; see `Receive`. `params.keys` is filled in here."""
        return self.perform(order, "receive", params.model_copy(update={"keys": self.keys()}))

    def check(self, order: str, params: Check) -> Outcome:
        """Compare a disk with a point. Raises VerifyError when it differs."""
        return self.perform(order, "check", params.model_copy(update={"keys": self.keys()}))

    def perform(self, order: str, verb: Verb, params: BaseModel) -> Outcome:
        """Give the order unless it was given, wait for its end. Raises what the agent's work raised, AgentError when it
        refuses, AgentSilent, and what `control.check` raises: the order then goes on (see `abandon`)."""
        begun = time.monotonic()
        refusal = "it does not take it"
        for _attempt in range(ATTEMPTS):
            sent = self.send(order, verb, params)
            report, accepted = self._wait(sent)
            if report is None:
                refusal = "the report of it disappears, or the agent begins a new life each time"
            elif report.state == "refused" and report.error is not None and report.error.kind in _NOT_DONE:
                refusal = report.error.message
            else:
                return self._ended(sent, report, time.monotonic() - begun, accepted)
            self._known.keep_sent(self.agent, replace(sent, ended=True))
        raise AgentError(
            f"agent {self.agent} was given the order {verb} {ATTEMPTS} times: {refusal}",
            remedy="find out who else writes to its mailbox, or whether it starts again and again",
        )

    def send(self, order: str, verb: Verb, params: BaseModel) -> Sent:
        """Give the order, once: one that was given and has not ended stays as it is. Does not wait."""
        wanted = params.model_dump(mode="json")
        asked = {name: value for name, value in wanted.items() if name != "keys"}
        digest = blake3(json.dumps([verb, asked], sort_keys=True).encode()).hexdigest()
        with self._known.locked(self.agent):
            sent = self._known.sent(self.agent, order)
            if sent is not None and sent.wanted != digest:
                raise UsageError(
                    f"order {order} was given to {self.agent} before, with another content",
                    remedy="another order needs another id",
                )
            if sent is None or sent.ended:
                sent = self._new(order, verb, wanted, digest, sent.attempt + 1 if sent else 1)
            while not self._post.create(order_key(self.agent, sent.number), sent.document.encode()):
                # What is there is not ours: somebody's junk, or of a state of ours that was lost.
                sent = self._new(order, verb, wanted, digest, sent.attempt)
            self._ring(ATTEND)
        return sent

    def abandon(self, order: str) -> None:
        """End an order that was given, and wait until it has ended. Nothing to do when it was not given."""
        sent = self._known.sent(self.agent, order)
        if sent is None or sent.ended:
            return
        report = self._post.report(sent.number)
        if report is None or not report.ended:
            self.perform(order_id("stop", order, sent.number), "stop", Stop(order=order))
            self._wait(sent)
        self._known.keep_sent(self.agent, replace(sent, ended=True))

    def retire(self, seconds: float) -> None:
        """Tell the agent to end for good. Raises AgentSilent when it does not within so many seconds."""
        sent = self.send(order_id("retire"), "retire", Nothing())
        end = time.monotonic() + seconds
        while (report := self._post.report(sent.number)) is None or not report.ended:
            if time.monotonic() > end:
                raise AgentSilent(
                    f"agent {self.agent} did not end within {seconds:.0f} s", remedy="use --force when it is gone"
                )
            self._control.check()
            self._sleep(0.5)

    def attend(self, seconds: float = ATTEND) -> None:
        """Orders are about to come: the agent looks for them often from its next look on."""
        with self._known.locked(self.agent):
            self._ring(seconds)

    def alive(self) -> Alive | None:
        """Its last sign of life."""
        return self._post.alive()

    def lives(self, within: float, *, since: datetime) -> bool:
        """Whether it has given a sign of life in the last so many seconds, and later than `since`. Orders are about to
        come: see `attend`."""
        self.attend()
        alive = self.alive()
        if alive is None or not alive.time:
            return False
        sign = from_text(alive.time)
        return sign > since and (self._clock.now() - sign).total_seconds() <= within

    def keys(self) -> Keys | None:
        """What an order brings along to open the repository; None when that is not encrypted."""
        ring = self.repository.sealing.ring
        if ring is None:
            return None
        generations = {}
        for number, generation in ring.generations.items():
            if generation.data is None or ring.ids is None:
                raise KeyRefused("this key opens no data: it is a janitor's", remedy="use an importer's key")
            generations[number] = (generation.index.hex(), generation.data.hex())
        assert ring.ids is not None
        return Keys(root=ring.root.hex(), ids=ring.ids.hex(), generations=generations)

    # -- giving ----------------------------------------------------------------------------------------------------

    def _new(self, order: str, verb: Verb, params: dict[str, Any], wanted: str, attempt: int) -> Sent:
        """The document of a new attempt, noted here before anybody sees it."""
        alive = self.alive()
        if alive is None:
            raise AgentSilent(f"agent {self.agent} gives no sign of life", remedy="start it, and run this again")
        if not self._clock.known:
            self._ring(ATTEND)
        number = self._known.highest(self.agent) + 1
        self._known.keep_highest(self.agent, number)
        body = Order(
            number=number, order=order, attempt=attempt, run=alive.run, issued=as_text(self._clock.now()),
            expires=self._clock.after(LIFETIME), verb=verb, params=params,
        )  # fmt: skip
        document = self._post.seal(order_key(self.agent, number), body).decode("ascii")
        sent = Sent(order, number, attempt, alive.run, wanted, document)
        self._known.keep_sent(self.agent, sent)
        return sent

    def _ring(self, seconds: float) -> None:
        """Tell the agent up to which number there are orders. The numbers are ours while we hold the lock."""
        key = bell_key(self.agent)
        number = self._known.highest(self.agent)
        if not self._clock.known:
            self._clock.learn(self.repository.store, key, self._post.seal(key, Bell(number=number)))
        bell = Bell(number=number, attend=self._clock.after(seconds))
        self.repository.store.put(key, self._post.seal(key, bell))

    # -- waiting ---------------------------------------------------------------------------------------------------

    def _wait(self, sent: Sent) -> tuple[Report | None, float | None]:
        """(the last report, seconds until the order was seen accepted). None: it is surely not worked on any more, and
        what became of it is not known; giving it again does no harm."""
        begun = time.monotonic()
        accepted: float | None = None
        looked, beat, lost = begun, -1, 0
        while True:
            self._control.check()
            report = self._post.report(sent.number)
            if report is not None and report.order == sent.order:
                if accepted is None and not report.ended:
                    accepted = time.monotonic() - begun
                self._show(report)
                if report.ended:
                    return report, accepted
            elif report is not None and report.state == "refused":
                return report, accepted
            now = time.monotonic()
            if now - looked >= _SIGNS:
                looked = now
                alive = self._living()
                if alive.run != sent.run:
                    report = self._post.report(sent.number)
                    return (report if report is not None and report.ended else None), accepted
                if alive.beat != beat and alive.handled >= sent.number and sent.order not in alive.active:
                    beat, lost = alive.beat, lost + 1
                    if lost >= 3:
                        return None, accepted
            self._sleep(min(max((now - begun) / 20, 0.25), 2.0))

    def _living(self) -> Alive:
        """Raises AgentSilent."""
        alive = self.alive()
        now = self._clock.now() if self._clock.known else None
        if alive is None or not alive.time:
            raise AgentSilent(f"agent {self.agent} gives no sign of life", remedy="start it; the order goes on then")
        if now is None:
            self.attend()
            now = self._clock.now()
        silent = (now - from_text(alive.time)).total_seconds()
        if silent > self.silence:
            raise AgentSilent(
                f"agent {self.agent} has given no sign of life for {silent:.0f} s",
                remedy="look at its host; when it runs again, the same call goes on",
            )
        return alive

    def _show(self, report: Report) -> None:
        progress = report.progress
        self._control.watch(
            Counters(
                phase=progress.phase,
                disk=progress.disk,
                total=progress.total,
                done=progress.done,
                read=progress.read,
                written=progress.written,
                deduplicated=progress.deduplicated,
            )
        )

    def _ended(self, sent: Sent, report: Report, waited: float, accepted: float | None) -> Outcome:
        if report.state == "done":
            return Outcome(report, round(waited, 3), accepted)
        self._known.keep_sent(self.agent, replace(sent, ended=True))
        trouble = report.error
        message = trouble.message if trouble else "it does not say why"
        name = f"agent {self.agent}: {message}"
        if report.state == "cancelled":
            raise Cancelled(name, remedy=trouble.remedy if trouble else "")
        if report.state == "refused":
            raise AgentError(name, remedy="upgrade failback on the older side" if trouble else "")
        kind = getattr(errors, trouble.kind, AgentError) if trouble else AgentError
        if not (isinstance(kind, type) and issubclass(kind, FailbackError)) or kind is errors.Unreadable:
            kind = errors.SourceError if kind is errors.Unreadable else AgentError
        raise kind(name, remedy=trouble.remedy if trouble else "")


def vouched(point: PointDisk | None) -> Held:
    """What the controller vouches for: that the disk holds this point's disk, or nothing but zeros."""
    return Held(point=point)
