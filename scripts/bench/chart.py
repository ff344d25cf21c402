"""Chart: the results as a picture."""

from pathlib import Path

from scripts.bench.results import OURS, Results
from scripts.bench.step import RESTORE, STEPS

MIB = 1 << 20


def draw(results: Results, path: Path) -> None:
    """Write a PNG: speed of each step by tool with the spread of the rounds, peak memory, stored bytes."""
    import matplotlib as mpl  # late: see the package's docstring

    mpl.use("Agg")
    from matplotlib import pyplot

    steps = [step for step in STEPS if any(taken.step == step for taken in results.steps)]
    figure, axes = pyplot.subplots(3, len(steps), figsize=(4.5 * len(steps), 9), squeeze=False)
    for column, step in enumerate(steps):
        tools = [tool for tool in results.versions if results.of(tool, step)]
        speeds = [[results.size / taken.wall / 1e6 for taken in results.of(tool, step)] for tool in tools]
        peaks = [results.middle(tool, step, lambda taken: taken.peak) for tool in tools]
        stored = [results.middle(tool, step, lambda taken: taken.stored) for tool in tools]
        middles = [results.size / results.middle(tool, step, lambda taken: taken.wall) / 1e6 for tool in tools]
        spread = [
            [middle - min(each) for middle, each in zip(middles, speeds, strict=True)],
            [max(each) - middle for middle, each in zip(middles, speeds, strict=True)],
        ]
        colors = ["tab:orange" if tool == OURS else "tab:blue" for tool in tools]
        axes[0][column].barh(tools, middles, xerr=spread, color=colors)
        axes[0][column].set_title(f"{step}: MB/s of the disk")
        axes[1][column].barh(tools, [peak / MIB for peak in peaks], color=colors)
        axes[1][column].set_title("peak memory, MiB")
        axes[2][column].barh(tools, [bytes_ / MIB for bytes_ in stored], color=colors)
        axes[2][column].set_title("stored, MiB")
    if steps[-1] == RESTORE:  # stores nothing
        axes[2][-1].set_axis_off()
        axes[2][-1].set_title("")
    for axis in axes.flat:
        axis.invert_yaxis()
    machine = results.machine
    rounds = max((taken.round for taken in results.steps), default=0)
    figure.suptitle(
        f"{results.size / (1 << 30):g} GiB disk, {results.data / (1 << 30):.1f} GiB of data, rounds: {rounds}; "
        f"{machine['cores']} cores {machine['processor']}"
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)
