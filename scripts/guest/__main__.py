"""Command line of the guest builder: ``python -m scripts.guest --help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from manifests.errors import FailbackError
from scripts.guest import takeover
from scripts.guest.build import GuestDisks, make_guest
from scripts.guest.recipe import MIB, Firmware, Mode, Recipe, Role


def main() -> int:
    """Run one command; returns its exit code."""
    arguments = _parser().parse_args()
    try:
        arguments.function(arguments)
    except FailbackError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _build(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    roles: list[Role] = ["loader", "root"] if arguments.root else ["system"]
    places = [out, *([arguments.root] if arguments.root else [])]
    if arguments.data:
        roles.append("data")
        places.append(arguments.data)
    key = arguments.key or out.with_suffix(".key")
    recipe = Recipe(arguments.firmware, tuple(roles), arguments.mode, arguments.name, arguments.size * MIB)
    make_guest(GuestDisks(recipe, tuple(places), ssh_key=key, ssh_host_key=Path(f"{key}.host")))
    for role, place in zip(roles, places, strict=True):
        print(f"{role:7} {place}")
    print(f"{'key':7} {key} (SSH as root; {key}.host is what the guest shows)")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.guest", description="A small machine that boots: make its disks, run it."
    )
    commands = parser.add_subparsers(required=True)
    build = commands.add_parser("build", help="make a machine's disks")
    build.add_argument("out", type=Path, metavar="OUT.raw", help="disk to boot from")
    build.add_argument("--firmware", choices=get_args(Firmware), default="bios")
    build.add_argument("--root", type=Path, metavar="FILE", help="another disk for the root file system")
    build.add_argument("--data", type=Path, metavar="FILE", help="also a data disk")
    build.add_argument("--name", default="guest", help="of the machine (%(default)s)")
    build.add_argument("--mode", choices=get_args(Mode), default="normal", help="how it behaves (%(default)s)")
    build.add_argument("--size", type=int, default=512, metavar="MIB", help="of each disk (%(default)s)")
    build.add_argument("--key", type=Path, metavar="FILE", help="private SSH key (OUT.key)")
    build.set_defaults(function=_build)

    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("folder", type=Path, metavar="FOLDER", help="of the running machine")
    starting = commands.add_parser(
        "start", parents=[folder], help="boot a disk (BIOS) and wait until its services are up"
    )
    starting.add_argument("disk", type=Path, metavar="DISK.raw")
    starting.set_defaults(function=lambda a: takeover.start(a.folder, a.disk, ready="failback-guest ready"))
    telling = commands.add_parser("tell", parents=[folder], help="run a shell command in the guest")
    telling.add_argument("command")
    telling.set_defaults(function=lambda a: print(takeover.tell(a.folder, a.command), end=""))
    taking = commands.add_parser(
        "moment", parents=[folder], help="print the file of the disk as it is at a consistent moment"
    )
    taking.set_defaults(function=lambda a: print(takeover.moment(a.folder)))
    stopping = commands.add_parser("stop", parents=[folder], help="press the power button and wait")
    stopping.set_defaults(function=lambda a: takeover.stop(a.folder))
    return parser


if __name__ == "__main__":
    sys.exit(main())
