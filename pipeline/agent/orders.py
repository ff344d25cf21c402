"""What a controller orders, and what an agent reports: the bodies of a mailbox's documents (FORMAT.md, section 16)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.text import Shown
from pipeline.errors import CorruptObject, NewerFormat

PROTOCOL = 1

Verb = Literal["inventory", "receive", "check", "stop", "retire"]
State = Literal["accepted", "running", "done", "failed", "cancelled", "refused"]
FINAL: tuple[State, ...] = ("done", "failed", "cancelled", "refused")

Id = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$")]
"""By the store's clock (pipeline.agent.clock.as_text)."""


class _Order(BaseModel):
    """From a controller: what is not known was written by a newer one, and is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _Report(BaseModel):
    """From an agent: what is not known does not matter."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class DiskName(_Order):
    """A disk of the agent's host: both must be true of it."""

    serial: str = Field(min_length=1, max_length=200)
    size: int = Field(ge=1, description="bytes")

    def __str__(self) -> str:
        return f"the disk with serial number {self.serial} and {self.size} bytes"


class PointDisk(_Order):
    """One disk of one recovery point, pinned: the agent believes no other object and no other content."""

    machine: str
    sequence: int = Field(ge=1)
    number: int = Field(ge=0)
    manifest: Hash = Field(description="BLAKE3 of the manifest object")
    digest: Hash = Field(description="of the disk")

    def __str__(self) -> str:
        return f"{self.machine}@{self.sequence} disk {self.number}"


class Held(_Order):
    """What the controller vouches for: every chunk of the disk is that of `point` (null: zeros), or already the one
    that is ordered."""

    point: PointDisk | None = None


class Keys(_Order):
    """The keys of an encrypted repository that a restore needs. They are in the sealed order and nowhere else."""

    root: Hash
    ids: Hash = Field(repr=False)
    generations: dict[int, tuple[Hash, Hash]] = Field(repr=False, description="number: index key, data key")


class Receive(_Order):
    """Make a disk equal a point's. Without `held` the agent trusts only what it knows itself, or reads the disk."""

    disk: DiskName
    point: PointDisk
    held: Held | None = None
    fresh: str = Field(
        default="", pattern="^[0-9a-f]{0,32}$",
        description="a word that was never said of this disk: what the agent knew of it before does not count",
    )  # fmt: skip
    seeds: tuple[DiskName, ...] = Field(default=(), description="disks that are only read, whose chunks need no GET")
    keys: Keys | None = None


class Check(_Order):
    """Read a whole disk and compare it with a point's."""

    disk: DiskName
    point: PointDisk
    keys: Keys | None = None


class Stop(_Order):
    """End the work on another order; it can be ordered again and goes on."""

    order: Id


class Nothing(_Order):
    """An order that needs no more words: inventory, retire."""


Params = Receive | Check | Stop | Nothing
PARAMS: dict[Verb, type[Params]] = {
    "inventory": Nothing,
    "receive": Receive,
    "check": Check,
    "stop": Stop,
    "retire": Nothing,
}


class Order(_Order):
    """One order. `number` is that of its key. `run` is the life of the agent that it is for."""

    protocol: Literal[1] = 1
    number: int = Field(ge=1)
    order: Id
    attempt: int = Field(ge=1)
    run: Id
    issued: Moment
    expires: Moment = Field(description="an order that was not accepted until then never is")
    verb: Verb
    params: dict[str, Any]


class Bell(_Order):
    """The number of the newest order, and until when (store's clock) more are to be looked for often."""

    number: int = Field(ge=0)
    attend: Moment | None = None


class Trouble(_Report):
    """An error as the agent saw it."""

    kind: str
    message: Shown
    remedy: Shown = ""


class Progress(_Report):
    """Bytes; see pipeline.progress.Counters."""

    phase: str = ""
    disk: str = ""
    total: int = 0
    done: int = 0
    read: int = 0
    written: int = 0
    deduplicated: int = 0


class Report(_Report):
    """What came of an order. Times are the store's; `seconds` since the agent found it."""

    number: int
    order: str
    attempt: int
    run: str
    state: State
    time: str
    seconds: float = 0.0
    steps: dict[str, float] = Field(
        default_factory=dict, description="seconds of each step; pick_up is as exact as the store's clock"
    )
    progress: Progress = Progress()
    result: dict[str, Any] = Field(default_factory=dict)
    error: Trouble | None = None

    @property
    def ended(self) -> bool:
        return self.state in FINAL


class Alive(_Report):
    """The agent's sign of life. `handled`: every order up to this number was accepted, refused or found missing."""

    protocol: int = PROTOCOL
    run: Id
    time: str
    beat: int
    handled: int
    active: tuple[str, ...] = ()
    host: Shown = ""
    version: str = ""


M = TypeVar("M", bound=BaseModel)


def parse(kind: type[M], body: dict[str, Any], key: str) -> M:
    """Raises CorruptObject, and NewerFormat for what a newer program wrote."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden" or where in ("protocol", "verb"):
            raise NewerFormat(f"{key} says {where}, which is not known here", remedy="upgrade the older side") from None
        raise CorruptObject(f"{key} is not what belongs there: {where}: {first['msg']}") from None
