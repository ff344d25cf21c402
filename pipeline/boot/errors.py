"""Errors of making media that boot."""

from manifests.errors import FailbackError


class MediumError(FailbackError):
    """A medium can't be made (a package, a tool or a choice is wrong), or what boots from it does not as it is told."""
