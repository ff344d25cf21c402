"""Whether what a machine wrote at a target may be thrown away without another word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import AccessDenied, TargetBusy

if TYPE_CHECKING:
    from pipeline.repository import Repository


def check_not_home(repository: Repository, machine: str, target: str) -> None:
    """Raises TargetBusy when a run brought it home for good. Who may not read that is not told."""
    from pipeline.runs.ownership import current

    try:
        epoch = current(repository, machine)
    except AccessDenied:
        return
    if epoch.side == "home-committed":
        raise TargetBusy(
            f"{machine} came home for good by run {epoch.run}: what it wrote at {target} since is nowhere else",
            remedy="export it first, or add --force to throw that away all the same",
        )
