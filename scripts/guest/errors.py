"""Errors of the guest."""

from manifests.errors import FailbackError


class GuestError(FailbackError):
    """A guest can't be built (a package, a tool or a choice is wrong), or does not do as it is told."""
