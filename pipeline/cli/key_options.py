"""The options that say what opens a new key slot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

KeyFileOption = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help="A file with a random key; it is made when it is not there."),
]
PassphraseFileOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", metavar="FILE", help="A file whose first line is the passphrase."),
]
KeyCommandOption = Annotated[
    str | None,
    typer.Option(
        "--key-command",
        metavar="PROGRAM",
        help="A program that wraps and unwraps a key: how a key management service is asked.",
    ),
]
