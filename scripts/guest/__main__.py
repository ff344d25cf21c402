"""Command line of the guest builder: ``python -m scripts.guest --help``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from manifests.errors import FailbackError
from scripts.guest.build import GuestDisks, make_guest
from scripts.guest.recipe import MIB, Firmware, Mode, Recipe, Role


def main() -> int:
    """Run one command; returns its exit code."""
    arguments = _parser().parse_args()
    try:
        _build(arguments)
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
        prog="python -m scripts.guest", description="Make disks of a small machine that boots."
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
    return parser


if __name__ == "__main__":
    sys.exit(main())
