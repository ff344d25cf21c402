"""`failback verify --boot`: does a recovery point start, and does the machine work?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.cli.arrived import ending_of
from pipeline.cli.grounds import ground_of
from pipeline.cli.invocation import Ending, Invocation
from pipeline.cli.mapped import read_mapping
from pipeline.cli.noted import note_verified
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from manifests.names import PointName
    from pipeline.cli.checking import Checking
    from pipeline.target import Build, Importer
    from pipeline.verify.results import Results

CLEAN_UP_SECONDS = 90.0
"""How long a rehearsal that is interrupted may take to stop the machine and drop its layer."""


def verify_by_booting(
    invocation: Invocation, name: PointName, target: str, mapping: str, checking: Checking, *, instant: bool
) -> Ending:
    """Rehearse in a place that is removed again, or on the stage of the machine at home."""
    from pipeline.catalogue import resolve
    from pipeline.cli.progress import shown
    from pipeline.home.rehearse import try_out
    from pipeline.home.site import open_site
    from pipeline.wanted import resolve as resolve_mapping

    mapped = read_mapping(mapping)
    with shown(invocation.output) as meter:
        ground = ground_of(invocation, mapped, watch=meter)
        found = resolve(ground.repository, name)
        wanted = resolve_mapping(mapped, found.manifest, target)
        with open_site(ground, target, name.machine, "verify") as site:
            if not site.abilities.machines:
                raise UsageError(
                    f"--to {target} makes disks, no machines: there is nothing to switch on",
                    remedy="name a target that has machines, such as --to qemu",
                )
        checking.check_reachable(wanted)
        invocation.grace_seconds = CLEAN_UP_SECONDS
        invocation.how_to_go_on = lambda: (
            "nothing is left running; the same command goes on, and `failback clean` takes away what this one left"
        )

        def verify(importer: Importer, build: Build, fresh: bool) -> Results:
            return checking.on(wanted.hardware, ground.control, importer, build, fresh=fresh)

        arrival = try_out(ground, target, found, wanted, instant=instant, verify=verify)
    if arrival.verdict is not None and arrival.verdict.verified:
        note_verified(invocation, ground.repository, found, "boot")
    return ending_of(invocation, found, target, arrival, checking, rehearsal=True)
