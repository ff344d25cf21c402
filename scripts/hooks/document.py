"""What the example hooks share: the document on standard input, and the three ways to end.

A hook of your own needs nothing of this: any program will do. See pipeline/verify/hooks/exec.py for the contract.
"""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

NOT_APPLICABLE = 77


class Document:
    """The document, from standard input."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = json.load(sys.stdin)

    @property
    def seconds(self) -> float:
        """Until this process is killed; a hook that ends before can say why."""
        return max(1.0, float(self.content["seconds"]) - 1)

    def endpoint(self, port: int) -> tuple[str, int]:
        """Where that port of the machine is reached. Ends as failed when it is not."""
        if str(port) not in self.content["endpoints"]:
            failed(f"port {port} is not asked for: add it to the `ports` of the check")
        found = self.content["endpoints"][str(port)]
        if found is None:
            failed(f"no way to port {port}")
        return found["host"], found["port"]


def passed(seen: str) -> NoReturn:
    print(seen)
    sys.exit(0)


def failed(seen: str) -> NoReturn:
    print(seen)
    sys.exit(1)


def not_applicable(why: str) -> NoReturn:
    print(why)
    sys.exit(NOT_APPLICABLE)
