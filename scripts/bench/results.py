"""Results: all raw figures of a benchmark, and the medians and ratios that follow from them."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from scripts.bench.step import STEPS, Step

OURS = "failback"
PLAIN = "failback-plain"


@dataclass(frozen=True)
class Changed:
    """What changed on the image in a round: bytes rewritten, chunks of 64 KiB that differ, those as zstd-1 frames."""

    round: int
    rewritten: int
    chunks: int
    compressed: int


@dataclass(frozen=True)
class Ratio:
    """A peer's wall time divided by ours, round by round: above 1 we are faster."""

    step: str
    peer: str
    median: float
    least: float
    most: float


@dataclass
class Results:
    """Sizes in bytes. `floor` is the memory of the benchmark itself: a smaller peak than that cannot be seen."""

    machine: dict[str, object]
    versions: dict[str, str]
    size: int
    data: int
    places: dict[str, str]
    floor: int
    steps: list[Step] = field(default_factory=list)
    changes: list[Changed] = field(default_factory=list)

    def of(self, tool: str, step: str) -> list[Step]:
        """This tool's figures of this step, one a round."""
        return [taken for taken in self.steps if (taken.tool, taken.step) == (tool, step)]

    def middle(self, tool: str, step: str, figure: Callable[[Step], float]) -> float:
        """Median over the rounds."""
        return median(map(figure, self.of(tool, step)))

    def pairs(self) -> list[tuple[str, str]]:
        """Steps and tools for which there are figures, in the order of a table."""
        return [(step, tool) for step in STEPS for tool in self.versions if self.of(tool, step)]

    def ratio(self, step: str, peer: str) -> Ratio | None:
        """How often our time fits into a peer's, or None when one of them has no figures."""
        ours = {taken.round: taken.wall for taken in self.of(OURS, step)}
        quotients = [taken.wall / ours[taken.round] for taken in self.of(peer, step) if taken.round in ours]
        return Ratio(step, peer, median(quotients), min(quotients), max(quotients)) if quotients else None

    def ratios(self) -> list[Ratio]:
        """Every ratio there are figures for."""
        found = [self.ratio(step, tool) for step, tool in self.pairs() if tool != OURS]
        return [ratio for ratio in found if ratio]

    def write(self, path: Path) -> None:
        """Write everything as JSON, the ratios too, so that a reader need not compute them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = asdict(self) | {"ratios": [asdict(ratio) for ratio in self.ratios()]}
        path.write_text(json.dumps(document, indent=1))

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Read what `write` wrote."""
        document = json.loads(path.read_text())
        document.pop("ratios")
        steps = [Step(**step) for step in document.pop("steps")]
        changes = [Changed(**changed) for changed in document.pop("changes")]
        return cls(**document, steps=steps, changes=changes)
