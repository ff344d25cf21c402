"""A key that exists on paper only."""

from __future__ import annotations

import secrets
from typing import Any

from pipeline.keys.locks import file_lock, key_line


class PrintedKey:
    """A key file's content that no file holds."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    @property
    def line(self) -> str:
        return key_line(self._key)

    def describe(self) -> str:
        return "the key on the recovery sheet"

    def new(self, repository: str) -> tuple[dict[str, Any], bytes]:
        return file_lock(self._key)
