"""The QEMU guest agent (qemu/qga/qapi-schema.json), through its serial port.

What it says is the guest's word: it may be anything, also no answer that the schema knows.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from importers.qemu.arguments import AGENT_SOCKET
from importers.qemu.jsonsocket import JsonSocket
from pipeline.errors import TargetError, TargetUnavailable, Unsupported
from pipeline.place import CommandResult

PING_SECONDS = 2.0
_POLL_SECONDS = 0.2
_ASK_SECONDS = 10.0
_NAME_LENGTH = 255
"""Of a host's name at most (RFC 1123, 2.1)."""
NONSENSE = (KeyError, TypeError, AttributeError, ValueError)
"""What becomes of an answer that has another shape than the schema's."""


class AgentError(TargetError):
    """The agent refused a command; `kind` is its class."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def ask(
    folder: Path,
    command: str,
    arguments: dict[str, Any] | None = None,
    *,
    seconds: float = PING_SECONDS,
    name: str = AGENT_SOCKET,
) -> Any:
    """One command, its answer. `name`: of the socket in that folder. Raises AgentError, or OSError when no agent
    answers in time."""
    with JsonSocket(folder, name, seconds=seconds) as socket:
        # What an earlier connection left unread comes first; a number of our own tells it apart.
        number = secrets.randbits(48)
        socket.send({"execute": "guest-sync-delimited", "arguments": {"id": number}}, before=b"\xff")
        while socket.receive().get("return") != number:
            pass
        socket.send({"execute": command, "arguments": arguments or {}})
        answer = socket.receive()
    if "error" in answer:
        error = answer["error"] if isinstance(answer["error"], dict) else {}
        raise AgentError(f"the guest agent refuses {command}: {error.get('desc')}", kind=str(error.get("class")))
    return answer.get("return")


def tell(folder: Path, command: str, arguments: dict[str, Any], *, name: str = AGENT_SOCKET) -> None:
    """A command that has no answer when it succeeds. Raises OSError."""
    with JsonSocket(folder, name, seconds=PING_SECONDS) as socket:
        socket.send({"execute": command, "arguments": arguments}, before=b"\xff")


def addresses(folder: Path) -> tuple[str, ...]:
    """Of the guest's interfaces, but loopback and link-local ones, with prefix length."""
    found = []
    for interface in ask(folder, "guest-network-get-interfaces"):
        for address in interface.get("ip-addresses", []):
            text = str(address["ip-address"])
            if not text.startswith(("127.", "169.254.", "fe80:")) and text != "::1":
                found.append(f"{text}/{address['prefix']}")
    return tuple(found)


def hostname(folder: Path) -> str:
    return str(ask(folder, "guest-get-host-name")["host-name"])[:_NAME_LENGTH]


def run(
    folder: Path,
    arguments: Sequence[str],
    *,
    stdin: bytes,
    seconds: float,
    turn: AbstractContextManager[Any],
    check: Callable[[], None],
    name: str = AGENT_SOCKET,
) -> CommandResult:
    """Run a program in the guest and wait for its end. The agent is asked inside `turn`; `check` is called in between.

    Raises Unsupported when the agent takes no commands or there is none, TargetUnavailable when it does not answer,
    TargetError when the program cannot be started or does not end in time (it may go on in the guest).
    """
    end = time.monotonic() + seconds
    shown = " ".join(arguments)
    request: dict[str, Any] = {"path": arguments[0], "arg": list(arguments[1:]), "capture-output": True}
    if stdin:
        request["input-data"] = base64.b64encode(stdin).decode()
    try:
        with turn:
            process = ask(folder, "guest-exec", request, seconds=min(seconds, _ASK_SECONDS), name=name)["pid"]
        while True:
            with turn:
                status = ask(
                    folder, "guest-exec-status", {"pid": process}, seconds=min(seconds, _ASK_SECONDS), name=name
                )
            if status["exited"]:
                break
            if time.monotonic() > end:
                raise TimeoutError("it still runs")
            check()
            time.sleep(_POLL_SECONDS)
        return CommandResult(
            int(status.get("exitcode", 128 + int(status.get("signal", 0)))),
            base64.b64decode(status.get("out-data", "")),
            base64.b64decode(status.get("err-data", "")),
        )
    except NONSENSE as error:
        raise TargetError(
            f"the guest agent's answer about `{shown}` makes no sense: {type(error).__name__} {error}",
            remedy="look at the agent in the guest",
        ) from error
    except AgentError as error:
        if error.kind in ("CommandNotFound", "CommandDisabled") or "disabled" in error.message:
            raise Unsupported(
                "the guest agent does not run programs (guest-exec is disabled)",
                remedy="allow it in the guest: /etc/qemu/qemu-ga.conf or BLOCK_RPCS in /etc/sysconfig/qemu-ga",
            ) from error
        raise TargetError(f"cannot run `{shown}` in the guest: {error.message}") from error
    except OSError as error:
        if time.monotonic() < end:
            raise TargetUnavailable(
                f"the guest agent did not answer about `{shown}`, which may go on in the guest: "
                f"{error.strerror or error}",
                remedy="again; see whether the guest is very busy, or qemu-guest-agent in it has ended",
            ) from error
        raise TargetError(
            f"`{shown}` did not end in the guest within {seconds:g} s: {error.strerror or error}",
            remedy="give it more time, or look at the guest",
        ) from error
