"""Table: the results as text."""

from collections.abc import Sequence
from statistics import median

from scripts.bench.results import OURS, Results
from scripts.bench.step import Step

MIB = 1 << 20
HEAD = ("step", "tool", "wall s", "MB/s", "CPU s", "peak MiB", "stored MiB", "requests", "server CPU s", "sync s")


def figures(results: Results) -> str:
    """Medians: a line a step and tool. MB/s are bytes of the whole logical disk, holes included, in 10^6."""
    rows = [HEAD]
    for step, tool in results.pairs():
        wall = results.middle(tool, step, lambda taken: taken.wall)
        stored = results.middle(tool, step, lambda taken: taken.stored) / MIB
        rows.append(
            (
                step,
                tool,
                f"{wall:.2f}",
                f"{results.size / wall / 1e6:,.0f}",
                f"{results.middle(tool, step, lambda taken: taken.cpu):.2f}",
                f"{results.middle(tool, step, lambda taken: taken.peak) / MIB:,.0f}",
                f"{stored:,.1f}",
                f"{results.middle(tool, step, lambda taken: taken.asked):,.0f}",
                f"{results.middle(tool, step, lambda taken: taken.server_cpu):.2f}",
                f"{results.middle(tool, step, lambda taken: taken.sync):.2f}",
            )
        )
    return aligned(rows)


def ratios(results: Results) -> str:
    """Our speed against each peer's: the median of the rounds' own ratios, the least and the most."""
    rows = [("step", f"{OURS} against", "times as fast", "least", "most")]
    for ratio in results.ratios():
        rows.append((ratio.step, ratio.peer, f"{ratio.median:.2f}", f"{ratio.least:.2f}", f"{ratio.most:.2f}"))
    return aligned(rows) if len(rows) > 1 else ""


def changes(results: Results) -> str:
    """What an incremental had to store at least."""
    if not results.changes:
        return ""
    chunks = median(changed.chunks for changed in results.changes)
    compressed = median(changed.compressed for changed in results.changes) / MIB
    rewritten = median(changed.rewritten for changed in results.changes) / MIB
    return (
        f"change: {rewritten:.1f} MiB rewritten, {chunks:,.0f} chunks of 64 KiB differ, {compressed:.1f} MiB as zstd-1"
    )


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width: the first two to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def show(step: Step, note: str = "") -> None:
    """Print one step at once: a benchmark that takes long should be seen to go on."""
    print(
        f"{step.tool:14} {step.step:12} {step.round:3}  {step.wall:8.2f} s  {step.peak / MIB:5.0f} MiB peak  "
        f"{step.asked:6} requests  {step.stored / MIB:9.2f} MiB stored  {note}".rstrip(),
        flush=True,
    )
