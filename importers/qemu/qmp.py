"""The QEMU Machine Protocol (qemu/docs/interop/qmp-spec.rst): a connection for a few commands.

QEMU talks to one client at a time, so connections are short and others wait for their turn. The events that come in
between are left to `events`, which loses none.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from importers.qemu.arguments import QMP_SOCKET
from importers.qemu.jsonsocket import Gone, JsonSocket
from pipeline.errors import TargetError

SECONDS = 5.0
"""QEMU answers at once unless its main loop is stuck, as it is with storage that hangs."""


class QmpError(TargetError):
    """QEMU refused a command."""


class QmpGone(TargetError):
    """QEMU does not run, ends, or does not answer."""


class Qmp:
    """Raises QmpGone when nobody answers."""

    def __init__(self, folder: Path, *, name: str = QMP_SOCKET, seconds: float = SECONDS) -> None:
        """`name`: of the socket in that folder."""
        self._folder = folder
        try:
            self._socket = JsonSocket(folder, name, seconds=seconds)
        except OSError as error:
            raise self._gone(error) from error
        try:
            self._receive("QMP")
            self.execute("qmp_capabilities")
        except BaseException:
            self._socket.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.__exit__(kind, error, at)

    def execute(self, command: str, **arguments: Any) -> Any:
        """The answer. Raises QmpError when QEMU refuses, QmpGone."""
        try:
            # Names of QMP's arguments have hyphens.
            named = {name.replace("_", "-"): value for name, value in arguments.items()}
            self._socket.send({"execute": command, "arguments": named})
        except OSError as error:
            raise self._gone(error) from error
        answer = self._receive("return", "error")
        if "error" in answer:
            refusal = answer["error"]
            said = refusal.get("desc", refusal) if isinstance(refusal, dict) else refusal
            raise QmpError(f"QEMU refuses {command}: {said}")
        return answer["return"]

    @property
    def process(self) -> int:
        """Number of the process that listens there."""
        return self._socket.peer

    def monitor(self, line: str) -> str:
        """A command of the human monitor, for what QMP lacks; its output, which is where it says what failed."""
        return str(self.execute("human-monitor-command", command_line=line)).strip()

    def _receive(self, *keys: str) -> dict[str, Any]:
        try:
            while True:
                document = self._socket.receive()
                if any(key in document for key in keys):
                    return document
        except OSError as error:
            raise self._gone(error) from error

    def _gone(self, error: OSError) -> QmpGone:
        how = "does not answer" if isinstance(error, TimeoutError) else "is not there"
        return QmpGone(
            f"QEMU of {self._folder} {how}: {error.strerror or error}",
            remedy="it may have ended, or hang on its storage; look again, or stop it",
        )


__all__ = ["Gone", "Qmp", "QmpError", "QmpGone"]
