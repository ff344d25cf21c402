"""Lines of JSON over a Unix socket in a machine's folder, however long the folder's name is."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_MOST = 64 << 20
"""Bytes of one answer. Output of a program in the guest is the longest; its agent stops at 16 MiB before base64."""

_STEP = 0.02


class Gone(OSError):
    """Nobody listens, or the connection was cut."""


class JsonSocket:
    """All calls together take `seconds` at most: then they raise TimeoutError."""

    def __init__(self, folder: Path, name: str, *, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._rest = b""
        directory = -1
        try:
            # The name of a Unix socket has 108 bytes at most (unix(7)).
            directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._connect(f"/proc/self/fd/{directory}/{name}")
        except TimeoutError:
            self._socket.close()
            raise
        except OSError as error:
            self._socket.close()
            raise Gone(error.errno, f"nobody answers at {folder / name}: {error.strerror}") from error
        finally:
            if directory >= 0:
                os.close(directory)

    def _connect(self, path: str) -> None:
        while True:
            self._patience()
            try:
                self._socket.connect(path)
            except BlockingIOError:  # others wait for their turn: QEMU lets one wait beside the one it talks to
                time.sleep(_STEP)
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    @property
    def peer(self) -> int:
        """Number of the process that called listen(2) (unix(7), SO_PEERCRED)."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[0])

    def send(self, document: dict[str, Any], *, before: bytes = b"") -> None:
        self._patience()
        try:
            self._socket.sendall(before + json.dumps(document).encode() + b"\n")
        except TimeoutError:
            raise
        except OSError as error:
            raise Gone(error.errno, f"the connection was cut: {error.strerror}") from error

    def receive(self) -> dict[str, Any]:
        """The next document; lines that are none are left out."""
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if not newline:
                self._more()
                continue
            self._rest = rest
            try:
                document = json.loads(line[line.rfind(b"\xff") + 1 :])
            except (ValueError, RecursionError):  # the latter: nested too deeply
                continue
            if isinstance(document, dict):
                return document

    def _more(self) -> None:
        if len(self._rest) > _MOST:
            raise Gone(0, f"an answer is longer than {_MOST} bytes")
        self._patience()
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            raise
        except OSError as error:
            raise Gone(error.errno, f"the connection was cut: {error.strerror}") from error
        if not data:
            raise Gone(0, "the connection was closed")
        self._rest += data

    def _patience(self) -> None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        self._socket.settimeout(left)
