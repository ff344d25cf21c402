"""A running machine as hooks see it, without a machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from manifests.machine import Machine
from pipeline.errors import Unsupported
from pipeline.target import Abilities, CommandResult, Endpoint, Network, Observation
from pipeline.verify.person import Question, Said
from pipeline.verify.subject import keep_file

ALL = Abilities(
    console=frozenset({"text", "picture"}), guest=frozenset({"heartbeat", "command"}), forward=True, layer="overlay"
)


@dataclass
class FakeSubject:
    """`pictures` are shown one after the other, the last for good. `isolated` networks lead nowhere."""

    artifacts: Path
    machine: Machine = field(default_factory=lambda: Machine(name="web-1"))
    abilities: Abilities = ALL
    networks: tuple[Network, ...] = (Network(),)
    isolated: bool = True
    fresh: bool = True
    observation: Observation = field(default_factory=lambda: Observation("on"))
    pictures: list[bytes | None] = field(default_factory=list)
    endpoints: dict[int, Endpoint] = field(default_factory=dict)
    taken: bool | None = None
    """What `accepted` says."""
    commands: Callable[[Sequence[str]], CommandResult] | None = None
    clock: float = 0.0
    questions: list[Question] = field(default_factory=list)
    said: Said | None = None
    """To all of them, elsewhere."""

    def seconds(self) -> float:
        return self.clock

    def observe(self) -> Observation:
        return self.observation

    def picture(self) -> bytes | None:
        if not self.pictures:
            return None
        return self.pictures.pop(0) if len(self.pictures) > 1 else self.pictures[0]

    def reach(self, port: int) -> Endpoint | None:
        return self.endpoints.get(port)

    def asked(self, question: Question) -> Said | None:
        self.questions.append(question)
        return self.said

    def accepted(self, port: int) -> bool | None:
        return self.taken

    def command(self, arguments: Sequence[str], *, stdin: bytes = b"", seconds: float) -> CommandResult:
        if self.commands is None:
            raise Unsupported("nothing in the guest takes commands")
        return self.commands(arguments)

    def save(self, name: str, data: bytes) -> Path:
        return keep_file(self.artifacts, name, data)
