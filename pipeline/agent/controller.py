"""The controller's side: pair agents, and know which there are."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from manifests.mail import PREFIX, Pair, agent_prefix, alive_key, answer_key, clock_key, is_agent
from pipeline.agent.clock import StoreClock, as_text, from_text
from pipeline.agent.code import PairingCode, StoreLogin
from pipeline.agent.known import Known, Pairing
from pipeline.agent.post import Post
from pipeline.agent.remote import Remote
from pipeline.agent.use import USED, Onlooker, free_here, used
from pipeline.errors import AgentError, AgentSilent, FailbackError, FormatError, StoreError, UsageError
from pipeline.repository import Repository
from pipeline.store.address import S3Address, parse_address
from pipeline.target import Control

WITHIN = 3600.0
"""Seconds in which a pairing code has to be answered."""
_NAME = re.compile("[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_LOOK = 0.5
_RETIRE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Listed:
    """An agent, as far as its mailbox tells."""

    agent: str
    ours: bool
    """This host gives it orders."""
    paired: bool
    host: str = ""
    seen: str = ""
    """Its last sign of life, by the store's clock; empty: none."""
    active: int = 0
    """Orders that it was working on then."""
    problem: str = ""


class Agents:
    """Of one repository, as this host controls them. `state` is this host's state folder."""

    def __init__(
        self,
        repository: Repository,
        state: Path,
        control: Control,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.repository = repository
        self.known = Known(state, repository.document.id)
        self._control = control
        self._sleep = sleep

    # -- pairing ---------------------------------------------------------------------------------------------------

    def pair(self, name: str, address: str, *, login: StoreLogin | None = None, within: float = WITHIN) -> PairingCode:
        """A code for a new agent. Show it once, to its host alone; nothing keeps it. `address`: of the repository, as
        the agent reaches it. `login`: for an agent that has no credentials of its own."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} can't be the name of an agent", remedy="use up to 40 letters a-z, digits and '-'"
            )
        agent = f"{name}-{secrets.token_hex(8)}"
        clock = StoreClock()
        clock.learn(self.repository.store, clock_key(agent), USED)
        pairing = Pairing(
            agent=agent,
            repository=self.repository.document.id,
            pair=Pair.new(),
            secret=secrets.token_bytes(32),
            created=as_text(clock.now()),
            expires=clock.after(within),
        )
        self.known.keep(pairing)
        plain, ca = _without_ca(address)
        return PairingCode(
            agent=agent,
            address=plain,
            repository=pairing.repository,
            controller=pairing.pair.public,
            secret=pairing.secret,
            expires=pairing.expires,
            login=login,
            ca=ca,
        )

    def answered(self, agent: str) -> Pairing | None:
        """Look for the answer to a code; the first one counts, and its keys from then on. None: there is none yet."""
        pairing = self.known.pairing(agent)
        if pairing.theirs is not None:
            return pairing
        found = self._post(pairing).read_answer()
        if found is None:
            return None
        body, theirs = found
        info = self.repository.store.head(answer_key(agent))
        if info is None or info.modified > from_text(pairing.expires):
            raise AgentError(
                f"the pairing code of {agent} was answered after it had expired ({pairing.expires})",
                remedy=f"`failback agent remove {agent}`, and make a new code",
            )
        if body.get("protocol") != 1:
            raise AgentError(
                f"{agent} speaks version {str(body.get('protocol'))[:20]} of the mailbox, this host version 1",
                remedy="use the same version of failback on both sides",
            )
        with self.known.locked(agent):
            pairing = replace(pairing, theirs=theirs, host=str(body.get("host", ""))[:200])
            self.known.keep(pairing)
        self.agent(agent).attend()
        return pairing

    def await_answer(self, agent: str, seconds: float) -> Pairing:
        """Until the agent has answered and gives signs of life: it may be ordered then. Raises AgentSilent when nobody
        answers in time; the code stays good until it expires."""
        end = time.monotonic() + seconds
        while (pairing := self.answered(agent)) is None or self.agent(agent).alive() is None:
            if time.monotonic() >= end:
                raise AgentSilent(
                    f"nobody has answered the pairing code of {agent} within {seconds:.0f} s",
                    remedy="start `failback agent run` with the code there; does that host reach the repository?",
                )
            self._control.check()
            self._sleep(_LOOK)
        return pairing

    # -- which there are -------------------------------------------------------------------------------------------

    def agent(self, agent: str) -> Remote:
        """To give orders. Raises AgentError for one that is not ours or not paired yet."""
        pairing = self.known.pairing(agent)
        if pairing.theirs is None:
            raise AgentError(
                f"{agent} has not answered its pairing code yet",
                remedy="start `failback agent run` with the code on its host",
            )
        return Remote(self.repository, self.known, pairing, self._post(pairing), self._control, sleep=self._sleep)

    def list(self) -> list[Listed]:
        """Those that this host controls, and others that have a mailbox in the repository."""
        ours = self.known.agents()
        return [self._ours(agent) for agent in ours] + [
            self._foreign(agent) for agent in self._in_bucket() if agent not in ours
        ]

    def remove(self, agent: str, *, force: bool = False) -> None:
        """Tell it to end, and take its mailbox away. `force`: also one that does not answer, or is not ours."""
        try:
            remote = self.agent(agent)
        except AgentError:
            if not force and agent not in self.known.agents():
                raise
        else:
            try:
                remote.retire(_RETIRE_SECONDS)
            except (AgentError, StoreError, FormatError):
                if not force:
                    raise
        keys = [info.key for info in self.repository.store.list(agent_prefix(agent))]
        self.repository.store.delete_many(keys)
        self.known.forget(agent)

    def discard(self, agent: str) -> None:
        """One of ours whose host runs another one by now. Stays when a command of this host still waits for it, or the
        store does not let us."""
        if agent not in self.known.agents() or not free_here(self.known.lock_of_use(agent)):
            return
        try:
            self.repository.store.delete_many([info.key for info in self.repository.store.list(agent_prefix(agent))])
        except StoreError as error:
            self._control.tell(f"the mailbox of {agent} stays: {error.message}")
            return
        self.known.forget(agent)

    # -- several controllers ---------------------------------------------------------------------------------------

    def use(self, agent: str) -> AbstractContextManager[None]:
        """Until its end other controllers see that we need the agent. Raises StoreError."""
        return used(self.repository.store, agent, self.known.lock_of_use(agent))

    def onlooker(self, agent: str) -> Onlooker:
        """For an agent of another controller."""
        return Onlooker(self.repository.store, agent)

    def _ours(self, agent: str) -> Listed:
        try:
            pairing = self.known.pairing(agent)
            alive = self._post(pairing).alive() if pairing.theirs else None
        except FailbackError as error:
            return Listed(agent, ours=True, paired=False, problem=error.message)
        if alive is None:
            return Listed(agent, ours=True, paired=pairing.theirs is not None, host=pairing.host)
        return Listed(agent, True, True, pairing.host, seen=alive.time, active=len(alive.active))

    def _foreign(self, agent: str) -> Listed:
        info = self.repository.store.head(alive_key(agent))
        seen = as_text(info.modified.astimezone(UTC)) if info else ""
        return Listed(agent, ours=False, paired=info is not None, seen=seen)

    def _in_bucket(self) -> Iterator[str]:
        after = ""
        while (info := next(iter(self.repository.store.list(PREFIX, after=after)), None)) is not None:
            agent = info.key.split("/")[1]
            if is_agent(agent):
                yield agent
            after = f"{PREFIX}{agent}/~"

    def _post(self, pairing: Pairing) -> Post:
        return Post(self.repository.store, pairing.channel, conditional=self.repository.conditional_put)


def age(seen: str, now: datetime) -> float:
    """Seconds since a sign of life."""
    return (now - from_text(seen)).total_seconds()


def _without_ca(address: str) -> tuple[str, str]:
    """(address, PEM): a path on this host means nothing on another one."""
    parsed = parse_address(address)
    if not isinstance(parsed, S3Address):
        return str(parsed), ""
    if parsed.profile:
        parsed = replace(parsed, profile="")
    if not parsed.ca:
        return str(parsed), ""
    try:
        pem = Path(parsed.ca).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the certificate {parsed.ca}: {error}", remedy="correct ca=") from error
    return str(replace(parsed, ca="")), pem
