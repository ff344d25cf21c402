"""Verdict: whether a figure of ours is within its bound, for the benchmarks that have no peers."""

from dataclasses import dataclass

from scripts.bench.checks import Check, report


@dataclass(frozen=True)
class Bound:
    """A figure and what it may not pass."""

    what: str
    figure: float
    limit: float
    unit: str = ""
    at_least: bool = False

    def check(self) -> Check:
        word = "at least" if self.at_least else "at most"
        met = self.figure >= self.limit if self.at_least else self.figure <= self.limit
        return Check(f"{self.what} {word} {self.limit:,.4g}{self.unit}", f"{self.figure:,.4g}{self.unit}", met)


def judge(bounds: list[Bound]) -> int:
    """Print every bound; 0 when all are kept, else 1."""
    return report([bound.check() for bound in bounds])
