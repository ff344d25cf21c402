"""Command line of the benchmarks: ``python -m scripts.bench --help``."""

import argparse
import sys
import tempfile
from pathlib import Path

from scripts.bench import checks, corpus, table
from scripts.bench.apart import apart
from scripts.bench.change import change
from scripts.bench.chart import draw
from scripts.bench.extents import write_extents
from scripts.bench.ground import workplace
from scripts.bench.image import GIB, make_image
from scripts.bench.peers import PEERS
from scripts.bench.results import Results
from scripts.bench.rounds import run_rounds
from scripts.bench.sparse import change_chunks, make_dotted, make_sparse
from scripts.bench.step import STEPS


def main() -> int:
    """Run one command; returns its exit code."""
    arguments = _parser().parse_args()
    try:
        return arguments.function(arguments) or 0
    except KeyboardInterrupt:
        print("interrupted: servers stopped, temporary files removed", file=sys.stderr)
        return 130


def _run(arguments: argparse.Namespace) -> int:
    with workplace(arguments.work, arguments.restore_to, arguments.store_in) as ground:
        results = run_rounds(
            ground,
            names=arguments.tools,
            steps=arguments.only,
            rounds=arguments.rounds,
            size=_bytes(arguments.size),
            fraction=arguments.change / 100,
            seed=arguments.seed,
        )
    results.write(arguments.json)
    return _present(results, arguments)


def _report(arguments: argparse.Namespace) -> int:
    return _present(Results.read(arguments.json), arguments)


def _present(results: Results, arguments: argparse.Namespace) -> int:
    for text in (table.figures(results), table.ratios(results), table.changes(results)):
        if text:
            print(f"\n{text}")
    if arguments.chart:
        apart(draw, results, arguments.chart)
    if not arguments.check:
        return 0
    print()
    return checks.report(checks.check(results))


def _image(arguments: argparse.Namespace) -> None:
    roots = arguments.source or corpus.default_roots()
    data = make_image(arguments.path, _bytes(arguments.size), roots=roots, fill=arguments.fill, seed=arguments.seed)
    print(f"{arguments.path}: {arguments.size:g} GiB, {data / GIB:.2f} GiB of data")


def _sparse(arguments: argparse.Namespace) -> None:
    roots = arguments.source or corpus.default_roots()
    size, wanted = _bytes(arguments.size), _bytes(arguments.data)
    data = make_sparse(arguments.path, size, wanted, roots=roots, seed=arguments.seed)
    print(f"{arguments.path}: {arguments.size:g} GiB, {data / GIB:.2f} GiB of data")


def _dotted(arguments: argparse.Namespace) -> None:
    make_dotted(arguments.path, arguments.chunks)


def _change(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=arguments.path.parent) as directory:
        done = change(arguments.path, Path(directory) / "undo", fraction=arguments.percent / 100, seed=arguments.seed)
    print(f"{done.length / (1 << 20):.1f} MiB rewritten in {len(done.extents):,} pieces")
    if arguments.list:
        write_extents(arguments.list, done.extents)


def _scatter(arguments: argparse.Namespace) -> None:
    extents = change_chunks(arguments.path, arguments.chunks, seed=arguments.seed)
    if arguments.list:
        write_extents(arguments.list, extents)


def _aged(arguments: argparse.Namespace) -> int:
    from scripts.bench.aged import aged

    with workplace(arguments.work, arguments.restore_to, arguments.store_in) as ground:
        return aged(
            ground,
            size=_bytes(arguments.size),
            generations=arguments.generations,
            fraction=arguments.change / 100,
            repeats=arguments.repeats,
            seed=arguments.seed,
        )


def _scale(arguments: argparse.Namespace) -> int:
    from scripts.bench.scale import scale

    with workplace(arguments.work, None, arguments.store_in) as ground:
        return scale(
            ground,
            data=_bytes(arguments.data),
            chunks=arguments.chunks,
            repeats=arguments.repeats,
            seed=arguments.seed,
        )


def _memory(arguments: argparse.Namespace) -> int:
    from scripts.bench.memory import memory

    with workplace(arguments.work, None, arguments.store_in) as ground:
        return memory(ground, entries=arguments.entries, chunks=arguments.chunks, seed=arguments.seed)


def _instant(arguments: argparse.Namespace) -> int:
    from scripts.bench.instant import instant

    with workplace(arguments.work, arguments.restore_to, arguments.store_in) as ground:
        starts = instant(ground, size=_bytes(arguments.size), seed=arguments.seed)
    if arguments.json:
        starts.write(arguments.json)
    print(f"\n{starts.table()}")
    if not arguments.check:
        return 0
    print()
    return checks.report([starts.check()])


def _stream(arguments: argparse.Namespace) -> int:
    from scripts.bench.stream import stream
    from scripts.bench.verdict import judge

    with workplace(arguments.work, arguments.restore_to, arguments.store_in) as ground:
        streams = stream(ground, size=_bytes(arguments.size), repeats=arguments.repeats, seed=arguments.seed)
    if arguments.json:
        streams.write(arguments.json)
    print(f"\n{streams.table()}")
    if not arguments.check:
        return 0
    print()
    return judge(streams.bounds())


def _floor(arguments: argparse.Namespace) -> None:
    from scripts.bench.floor import floor

    with workplace(arguments.work, arguments.restore_to, arguments.store_in) as ground:
        found = floor(ground, size=_bytes(arguments.size), repeats=arguments.repeats, seed=arguments.seed)
    if arguments.json:
        found.write(arguments.json)
    print(f"\n{found.table()}")


def _refresh(arguments: argparse.Namespace) -> int:
    from scripts.bench.refresh import Wish, refresh
    from scripts.bench.verdict import judge

    disks = tuple((_bytes(size), _bytes(data)) for size, data in zip(arguments.sizes, arguments.data, strict=True))
    wish = Wish(
        disks,
        changed=arguments.chunks,
        repeats=arguments.repeats,
        staged_by=arguments.staged_by,
        side_by_side=arguments.disks,
        each=_bytes(arguments.each),
        rest=arguments.rest,
        seed=arguments.seed,
    )
    with workplace(arguments.work, arguments.restore_to, arguments.store_in) as ground:
        refreshes = refresh(ground, wish)
    if arguments.json:
        refreshes.write(arguments.json)
    print(f"\n{refreshes.table()}")
    if not arguments.check:
        return 0
    print()
    return judge(refreshes.bounds())


def _downtime(arguments: argparse.Namespace) -> int:
    from scripts.bench.downtime import Wish, downtime

    sizes = tuple(_bytes(size) for size in sorted(arguments.sizes))
    wish = Wish(sizes, arguments.chunks, arguments.repeats, arguments.contrast, arguments.seed)
    with workplace(arguments.work, arguments.restore_to, arguments.store_in) as ground:
        found = downtime(ground, wish)
    if arguments.json:
        found.write(arguments.json)
    print(f"\n{found.table()}")
    if not arguments.check:
        return 0
    print()
    return checks.report(found.checks())


def _gc(arguments: argparse.Namespace) -> int:
    from scripts.bench.gc import gc

    return gc(
        packs=arguments.packs,
        points=arguments.points,
        machines=arguments.machines,
        doomed=arguments.doomed / 100,
        seed=arguments.seed,
        check=arguments.check,
    )


def _bytes(gib: float) -> int:
    return round(gib * GIB) // 4096 * 4096


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(function=function)
        made.add_argument("--seed", type=int, default=1)
        return made

    def checked(made: argparse.ArgumentParser) -> None:
        made.add_argument("--check", action="store_true", help="print pass or FAIL for each promise, exit 1 on FAIL")

    def presented(made: argparse.ArgumentParser) -> None:
        made.add_argument("--chart", type=Path, help="also draw a PNG")
        checked(made)

    def placed(made: argparse.ArgumentParser) -> None:
        made.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()), help="image, caches, all the rest")
        made.add_argument("--store-in", type=Path, help="the server's objects; default: as --work")

    def restored(made: argparse.ArgumentParser) -> None:
        made.add_argument("--restore-to", type=Path, help="restored images; default: as --work")

    made = command("run", _run, "compare tools in rounds: full, change, incremental, restore")
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--size", type=float, default=4, help="GiB of the disk")
    made.add_argument("--change", type=float, default=2, help="percent of the data to rewrite")
    made.add_argument("--tools", nargs="+", choices=list(PEERS), default=["failback", "restic", "kopia", "zstd"])
    made.add_argument("--only", nargs="+", choices=STEPS, default=STEPS, help="report these steps only")
    made.add_argument("--json", type=Path, default=Path("bench.json"), help="all raw figures")
    placed(made)
    restored(made)
    presented(made)

    made = command("report", _report, "print, draw or check results that were written before")
    made.add_argument("json", type=Path)
    presented(made)

    for name, function, text in (
        ("image", _image, "make a disk image about half full of real files"),
        ("sparse", _sparse, "make a large disk with a little scattered data"),
    ):
        made = command(name, function, text)
        made.add_argument("path", type=Path)
        made.add_argument("--size", type=float, default=4 if name == "image" else 1024, help="GiB of the disk")
        made.add_argument("--source", type=Path, nargs="+", help="take file contents from here; default: /usr and more")
        if name == "image":
            made.add_argument("--fill", type=float, default=0.5, help="share of the disk that holds data")
        else:
            made.add_argument("--data", type=float, default=2, help="GiB of data")

    made = command("dotted", _dotted, "make a disk on which every chunk of 64 KiB holds a little data")
    made.add_argument("path", type=Path)
    made.add_argument("--chunks", type=int, default=1_000_000)

    made = command("change", _change, "rewrite a little of a disk's data in scattered pieces")
    made.add_argument("path", type=Path)
    made.add_argument("--percent", type=float, default=2)
    made.add_argument("--list", type=Path, help="write the change list as JSON")

    made = command("scatter", _scatter, "rewrite whole chunks of 64 KiB all over a disk, holes included")
    made.add_argument("path", type=Path)
    made.add_argument("--chunks", type=int, default=1000)
    made.add_argument("--list", type=Path, help="write the change list as JSON")

    made = command("aged", _aged, "restore after many incrementals beside a fresh repository")
    made.add_argument("--size", type=float, default=4, help="GiB of the disk")
    made.add_argument("--generations", type=int, default=50)
    made.add_argument("--change", type=float, default=2, help="percent of the data to rewrite each time")
    made.add_argument("--repeats", type=int, default=3)
    placed(made)
    restored(made)

    made = command("scale", _scale, "an incremental with a change list on a 10 GiB and on a 1 TiB disk")
    made.add_argument("--data", type=float, default=2, help="GiB of data on each disk")
    made.add_argument("--chunks", type=int, default=1000, help="changed chunks of 64 KiB")
    made.add_argument("--repeats", type=int, default=3)
    placed(made)

    made = command("instant", _instant, "an instant start beside a full restore and a start from local disks")
    made.add_argument("--size", type=float, default=4, help="GiB of the disk that cannot be compressed")
    made.add_argument("--json", type=Path, help="all figures")
    placed(made)
    restored(made)
    checked(made)

    made = command("stream", _stream, "a disk sent as a VMDK over TLS beside a plain restore, and over a slow link")
    made.add_argument("--size", type=float, default=4, help="GiB of the disk")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--json", type=Path, help="all figures")
    placed(made)
    restored(made)
    checked(made)

    made = command("floor", _floor, "the CPU seconds that no restore can do without, beside restic's restore")
    made.add_argument("--size", type=float, default=4, help="GiB of the disk")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--json", type=Path, help="all figures")
    placed(made)
    restored(made)

    made = command("refresh", _refresh, "from a point committed to its machine switched on at (simulated) VMware")
    made.add_argument("--sizes", type=float, nargs=2, default=(20, 200), help="GiB of the two disks")
    made.add_argument("--data", type=float, nargs=2, default=(2, 8), help="GiB of data on each")
    made.add_argument("--chunks", type=int, default=1280, help="changed chunks of 64 KiB")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument(
        "--staged-by", choices=("worker", "bulk"), default="worker", help="how the disks came there first"
    )
    made.add_argument("--rest", type=float, default=2, help="seconds that the agent is left alone before each export")
    made.add_argument("--disks", type=int, default=4, help="of the machine that is imported as a whole for its memory")
    made.add_argument("--each", type=float, default=1, help="GiB of data on each of these")
    made.add_argument("--json", type=Path, help="all figures")
    placed(made)
    restored(made)
    checked(made)

    made = command(
        "downtime", _downtime, "from a source that is stopped to its machine on at home, by how much data it has"
    )
    made.add_argument("--sizes", type=float, nargs="+", default=(1, 4, 8), help="GiB of data on each disk")
    made.add_argument("--chunks", type=int, default=1024, help="chunks of 64 KiB that change before each cutover")
    made.add_argument("--repeats", type=int, default=4, help="cutovers of each with a change map")
    made.add_argument("--contrast", type=int, default=2, help="cutovers of each without one")
    made.add_argument("--json", type=Path, help="all figures")
    placed(made)
    restored(made)
    checked(made)

    made = command("memory", _memory, "our peak memory on disks of very different size")
    made.add_argument("--entries", type=int, default=1_000_000, help="chunks with data on the disk with most of them")
    made.add_argument("--chunks", type=int, default=1000, help="changed chunks of the incremental")
    placed(made)

    made = command("gc", _gc, "plan a collection of a million packs in a simulated store")
    made.add_argument("--packs", type=int, default=1_000_000)
    made.add_argument("--points", type=int, default=1000)
    made.add_argument("--machines", type=int, default=10)
    made.add_argument("--doomed", type=float, default=10, help="percent of the packs that no point needs")
    made.add_argument("--check", action="store_true", help="print pass or FAIL for each promise, exit 1 on FAIL")
    return parser


if __name__ == "__main__":
    sys.exit(main())
