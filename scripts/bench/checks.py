"""Checks: what this program promises in figures, held against results."""

from dataclasses import dataclass
from statistics import median

from scripts.bench.image import GIB
from scripts.bench.results import OURS, PLAIN, Ratio, Results
from scripts.bench.step import FULL, INCREMENTAL, RESTORE

MIB = 1 << 20


@dataclass(frozen=True)
class Check:
    """One promise: `met` is None when the results do not say."""

    promise: str
    figure: str
    met: bool | None

    def __str__(self) -> str:
        word = {True: "pass", False: "FAIL", None: "not measured"}[self.met]
        return f"{word:12}  {self.promise}: {self.figure}"


def check(results: Results) -> list[Check]:
    """Every promise that can be checked by a comparison."""
    return [
        _faster(results, FULL, "restic", 3.0),
        _faster(results, FULL, "zstd", 0.65),
        _faster(results, RESTORE, "restic", 3.5),
        _faster(results, INCREMENTAL, "kopia", 8.0 if results.size >= 16 * GIB else 4.0, at_least=4 * GIB),
        _small_incremental(results, 1.3),
        _small_memory(results, 256 * MIB),
        _cheap_encryption(results, FULL, 1.06),
        _cheap_encryption(results, RESTORE, 1.06),
    ]


def report(checks: list[Check]) -> int:
    """Print them; 0 when at least one was measured and none failed, else 1."""
    for one in checks:
        print(one)
    measured = [one.met for one in checks if one.met is not None]
    return 0 if measured and all(measured) else 1


def _faster(results: Results, step: str, peer: str, times: float, *, at_least: int = 0) -> Check:
    promise = f"{step} at least {times:g} times as fast as {peer}"
    ratio: Ratio | None = results.ratio(step, peer)
    if ratio is None:
        return Check(promise, "no figures", None)
    figure = f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f}) on {results.size / GIB:g} GiB"
    if results.size < at_least:
        return Check(promise, f"{figure}; promised from {at_least / GIB:g} GiB", None)
    return Check(promise, figure, ratio.median >= times)


def _small_incremental(results: Results, times: float) -> Check:
    promise = f"incremental stores at most {times:g} times the zstd-1 size of the chunks that differ"
    least = {changed.round: changed.compressed for changed in results.changes}
    factors = [step.stored / least[step.round] for step in results.of(OURS, INCREMENTAL) if least.get(step.round)]
    if not factors:
        return Check(promise, "no figures", None)
    return Check(promise, f"{max(factors):.2f} at most", max(factors) <= times)


def _small_memory(results: Results, limit: int) -> Check:
    promise = f"no step of ours takes more than {limit // MIB} MiB"
    peaks = [step.peak for step in results.steps if step.tool == OURS]
    if not peaks:
        return Check(promise, "no figures", None)
    return Check(promise, f"{max(peaks) / MIB:.0f} MiB", max(peaks) <= limit)


def _cheap_encryption(results: Results, step: str, times: float) -> Check:
    promise = f"{step} takes at most {times:g} times the CPU seconds of one without encryption"
    plain = {taken.round: taken.cpu for taken in results.of(PLAIN, step)}
    factors = [taken.cpu / plain[taken.round] for taken in results.of(OURS, step) if taken.round in plain]
    if not factors:
        return Check(promise, "no figures", None)
    middle = median(factors)
    return Check(promise, f"{middle:.3f} ({min(factors):.3f} to {max(factors):.3f})", middle <= times)
