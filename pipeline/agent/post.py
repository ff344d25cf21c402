"""One side's view of one mailbox in a store: typed documents in and out."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel

from manifests.mail import Channel, Public, alive_key, answer_key, bell_key, order_key, report_key
from pipeline.agent.orders import Alive, Bell, Order, Report, parse
from pipeline.errors import AlreadyExists, NotFound
from pipeline.store.base import Store

M = TypeVar("M", bound=BaseModel)


class Post:
    """Reads what the other side wrote. `conditional`: the store can create a key only if it is absent."""

    def __init__(self, store: Store, channel: Channel, *, conditional: bool) -> None:
        self.store = store
        self.channel = channel
        self.agent = channel.agent
        self._conditional = conditional

    # -- both ------------------------------------------------------------------------------------------------------

    def seal(self, key: str, body: BaseModel) -> bytes:
        """The document for `key`, to be stored as it is."""
        return self.channel.write(key, body.model_dump(mode="json"))

    def create(self, key: str, data: bytes) -> bool:
        """Whether `key` now holds these bytes; False when others are there. A lost answer does no harm."""
        try:
            if not self._conditional and self.store.head(key) is not None:
                raise AlreadyExists(key)
            self.store.put(key, data, create=self._conditional)
        except AlreadyExists:
            return self._get(key) == data
        return True

    def _get(self, key: str) -> bytes | None:
        try:
            return bytes(self.store.get(key))
        except NotFound:
            return None

    def _read(self, kind: type[M], key: str, *, mine: bool = False) -> M | None:
        data = self._get(key)
        return None if data is None else parse(kind, self.channel.read(data, key, mine=mine), key)

    # -- the agent's -----------------------------------------------------------------------------------------------

    def answer(self, body: dict[str, object]) -> tuple[str, bytes]:
        """(key, document) of the answer to the pairing code."""
        key = answer_key(self.agent)
        return key, self.channel.write(key, body, known=False)

    def bell(self) -> Bell | None:
        return self._read(Bell, bell_key(self.agent))

    def order(self, number: int) -> Order | None:
        """None: it is not there. Raises Forged, CorruptObject, NewerFormat."""
        return self._read(Order, order_key(self.agent, number))

    # -- the controller's ------------------------------------------------------------------------------------------

    def read_answer(self) -> tuple[dict[str, object], Public] | None:
        key = answer_key(self.agent)
        data = self._get(key)
        return None if data is None else self.channel.read_answer(data, key)

    def report(self, number: int) -> Report | None:
        return self._read(Report, report_key(self.agent, number))

    def alive(self) -> Alive | None:
        return self._read(Alive, alive_key(self.agent))
