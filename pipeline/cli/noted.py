"""What commands note in the repository for `forget`: that a point was found good, or is on disks somewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import AccessDenied, KeyRefused

if TYPE_CHECKING:
    from pipeline.catalogue import Point
    from pipeline.cli.invocation import Invocation
    from pipeline.home.site import Site
    from pipeline.repository import Repository


def note_verified(invocation: Invocation, repository: Repository, point: Point, how: str) -> None:
    """The proof does not depend on it: who may not write there is told only that policies will not know."""
    from pipeline.collect.record import record_verification

    try:
        record_verification(repository, point, how)
    except (AccessDenied, KeyRefused) as error:
        invocation.warn(f"that {point.manifest.label} is good is not noted for `failback forget`: {error.message}")


def note_staged(invocation: Invocation, site: Site, point: Point) -> None:
    """Before its disks are used: it must not be forgotten while they hold it."""
    import socket

    from pipeline.collect.record import hold
    from pipeline.home.clean import holder_of

    reason = f"on disks at {site.target}, by {socket.gethostname()}"
    try:
        hold(site.ground.repository, point, holder=holder_of(site), reason=reason)
    except (AccessDenied, KeyRefused) as error:
        invocation.warn(
            f"{point.manifest.label} may be forgotten while its disks are at {site.target}: {error.message}"
        )
