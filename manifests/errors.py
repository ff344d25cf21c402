"""The roots of the error tree, as far as the formats need them. The whole tree is drawn in `pipeline/errors.py`."""

from __future__ import annotations


class FailbackError(Exception):
    """Base of all errors. `message` says what failed and on what; `remedy` what the user can do."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class UsageError(FailbackError):
    """The request itself is wrong."""

    exit_code = 2


class FormatError(FailbackError):
    """Bytes that are not what they should be."""

    exit_code = 5


class CorruptObject(FormatError):
    """Hash, length or structure is wrong."""


class NewerFormat(FormatError):
    """Written by a later version of failback."""


class WrongRepository(FormatError):
    """Belongs to another repository."""


class Forged(CorruptObject):
    """Whole, but written by somebody who may not."""


class KeyRefused(FailbackError):
    """A key is missing, wrong or not good for this; or it is not the repository that is known here."""

    exit_code = 13
