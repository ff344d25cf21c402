"""Errors of the guest builder."""

from manifests.errors import FailbackError


class GuestError(FailbackError):
    """A guest disk can't be built: a package, a tool or a choice is wrong."""
