"""Rounds: every tool in turn, again and again, so that a slow minute of the machine hits all of them alike."""

from collections.abc import Sequence

from scripts.bench import corpus, facts, files
from scripts.bench.apart import apart
from scripts.bench.change import Change, change
from scripts.bench.difference import difference
from scripts.bench.ground import Ground
from scripts.bench.image import GIB, make_image
from scripts.bench.measure import own_peak
from scripts.bench.peers import PEERS, Peer
from scripts.bench.results import Changed, Results
from scripts.bench.table import show
from scripts.bench.tool import ToolMissing
from scripts.bench.turn import take_turn


def available(names: Sequence[str]) -> dict[str, str]:
    """Versions of those of the named tools that are there; says which are not. Raises KeyError for an unknown one."""
    versions = {}
    for name in names:
        try:
            versions[name] = PEERS[name].version()
        except ToolMissing as missing:
            print(f"left out: {missing}", flush=True)
    return versions


def run_rounds(
    ground: Ground, *, names: Sequence[str], steps: Sequence[str], rounds: int, size: int, fraction: float, seed: int
) -> Results:
    """Make an image of `size` bytes and let every tool store and restore it; prints a line a step."""
    versions = available(names)
    data = apart(make_image, ground.image, size, roots=corpus.default_roots(), seed=seed)
    print(f"image: {size / GIB:g} GiB with {data / GIB:.2f} GiB of data", flush=True)
    places = {name: files.file_system(place.parent) for name, place in vars(ground).items()}
    results = Results(facts.machine(), versions, size, data, places, own_peak())
    for number in range(1, rounds + 1):
        for name in versions:
            _turn(PEERS[name], number, ground, steps, fraction, seed + number, results)
    return results


def _turn(
    peer: type[Peer], number: int, ground: Ground, steps: Sequence[str], fraction: float, seed: int, results: Results
) -> None:
    changes: list[Change] = []

    def change_image() -> None:
        undo = ground.scratch / "undo"
        changes.append(change(ground.image, undo, fraction=fraction, seed=seed))
        if number not in {changed.round for changed in results.changes}:
            found = apart(difference, ground.image, changes[0])
            results.changes.append(Changed(number, changes[0].length, found.chunks, found.compressed))

    try:
        for step in take_turn(peer, number, ground, change_image, steps):
            results.steps.append(step)
            show(step)
    finally:
        for applied in changes:
            applied.revert(ground.image)
