"""Where the keys of this command come from: settings, the environment, or whoever sits at the terminal."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from manifests.repository import RepositoryDocument
from pipeline.config import Settings
from pipeline.errors import KeyRefused, UsageError
from pipeline.keys.locks import Command, KeyFile, Lock, Passphrase

VARIABLE = "FAILBACK_PASSPHRASE"
_NONE = (
    "give --key-file FILE (it is made when it is not there), --passphrase-file FILE or --key-command PROGRAM, or set "
    "FAILBACK_KEY_FILE and the like; without encryption everybody who can read the bucket can read your disks, and "
    "--no-encryption says that you want that"
)


def locks_of(settings: Settings, environ: Mapping[str, str] = os.environ, *, ask: bool = True) -> list[Lock]:
    """All that is set, the cheapest first; a passphrase is asked for when nothing is and there is a terminal."""
    found: list[Lock] = []
    if settings.key_file is not None:
        found.append(KeyFile(settings.key_file))
    if settings.key_command:
        found.append(Command(settings.key_command))
    if settings.passphrase_file is not None:
        found.append(from_file(settings.passphrase_file))
    if text := environ.get(VARIABLE, ""):
        found.append(Passphrase(lambda: text, f"in {VARIABLE}"))
    if not found and ask and _terminal():
        found.append(Passphrase(cache(lambda: getpass.getpass("Passphrase of the repository: ")), "typed"))
    return found


def new_lock(
    settings: Settings | None,
    *,
    key_file: Path | None,
    passphrase_file: Path | None,
    key_command: str | None,
    environ: Mapping[str, str] = os.environ,
) -> Lock:
    """The one lock a new slot gets: what the options say, else what the settings (if any) say, else a new passphrase
    that is asked for twice. Raises UsageError when there is none, or more than one."""
    given: list[Lock] = []
    if key_file is not None:
        given.append(KeyFile(key_file))
    if passphrase_file is not None:
        given.append(from_file(passphrase_file))
    if key_command is not None:
        given.append(Command(key_command))
    if len(given) > 1:
        raise UsageError("more than one key is given for one slot", remedy="give one, and add the others as slots")
    if given:
        return given[0]
    if settings is not None and (found := locks_of(settings, environ, ask=False)):
        return found[0]
    if not _terminal():
        raise UsageError("nothing says what the key is opened with", remedy=_NONE)
    return Passphrase(cache(_ask_twice), "typed")


def refuse_plain(
    document: RepositoryDocument, settings: Settings, name: str, environ: Mapping[str, str] = os.environ
) -> None:
    """Raises KeyRefused for a plain repository where a key is set: it is not the one that was meant."""
    if document.encryption is None and locks_of(settings, environ, ask=False):
        raise KeyRefused(
            f"{name} is not encrypted, and a key for it is set",
            remedy="somebody may have put a plain one in the place of yours; if this one is meant, unset the key",
        )


def from_file(path: Path) -> Passphrase:
    """The first line of a file."""

    def read() -> str:
        try:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise KeyRefused(
                f"cannot read the passphrase file {path}: {error.strerror}", remedy="check its name and rights"
            ) from error
        return text.split("\n", 1)[0].removesuffix("\r")

    return Passphrase(cache(read), f"in {path}")


def _ask_twice() -> str:
    first = getpass.getpass("New passphrase: ")
    if getpass.getpass("The same again: ") != first:
        raise UsageError("the two passphrases differ", remedy="try again")
    return first


def _terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()
