"""A guest's agent says what the guest likes: whatever that is, the machine is still seen, and the end is told."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from importers.qemu import agent
from importers.qemu.arguments import AGENT_SOCKET
from importers.qemu.events import Events
from importers.qemu.observe import Guest, look_at_guest
from importers.qemu.takeover import explained
from pipeline.errors import SourceError, SourceUnavailable, TargetError

DEEP = b"[" * 100_000
"""JSON that no parser goes down to the end of."""
Say = Callable[[dict[str, bytes]], Path]


@pytest.fixture
def says(tmp_path: Path) -> Iterator[Say]:
    """An agent that answers a command with that line, and any other with an empty success."""
    servers: list[socketserver.ThreadingUnixStreamServer] = []

    def started(lines: dict[str, bytes]) -> Path:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    request: dict[str, Any] = json.loads(line.strip(b"\xff"))
                    if request["execute"] == "guest-sync-delimited":
                        answer = b"\xff" + json.dumps({"return": request["arguments"]["id"]}).encode()
                    else:
                        answer = lines.get(request["execute"], b'{"return": {}}')
                    self.wfile.write(answer + b"\n")

        server = socketserver.ThreadingUnixStreamServer(str(tmp_path / AGENT_SOCKET), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return tmp_path

    yield started
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "line",
    [
        b'{"return": ["eth0", 7]}',
        b'{"return": [{"ip-addresses": "none"}]}',
        b'{"return": [{"ip-addresses": [{"ip-address": "192.0.2.1"}]}]}',
        b'{"return": 1e999}',
        b'{"error": "no"}',
        b"\xff\xfe\x00 no JSON\n" + DEEP + b'\n{"return": null}',
    ],
)
def test_nonsense_about_addresses_is_a_sign_of_life_and_no_more(says: Say, line: bytes) -> None:
    folder = says({"guest-network-get-interfaces": line})
    assert look_at_guest(folder, Events(), agent_open=True) == Guest(True)


def test_an_agent_that_refuses_to_be_pinged_is_there(says: Say) -> None:
    refused = b'{"error": {"class": "CommandNotFound", "desc": "disabled"}}'
    folder = says({"guest-ping": refused, "guest-get-host-name": b'{"return": {"host-name": "' + b"a" * 9999 + b'"}}'})
    seen = look_at_guest(folder, Events(), agent_open=True)
    assert seen.heartbeat is True
    assert len(seen.hostname) <= 255


@pytest.mark.parametrize(
    "lines",
    [
        {"guest-exec": b'{"return": 7}'},
        {"guest-exec": b'{"return": {"pid": 1}}', "guest-exec-status": b'{"return": []}'},
        {
            "guest-exec": b'{"return": {"pid": 1}}',
            "guest-exec-status": b'{"return": {"exited": true, "exitcode": "none"}}',
        },
        {
            "guest-exec": b'{"return": {"pid": 1}}',
            "guest-exec-status": b'{"return": {"exited": true, "exitcode": 0, "out-data": "AAA"}}',
        },
    ],
)
def test_nonsense_about_a_command_is_an_error_that_says_so(says: Say, lines: dict[str, bytes]) -> None:
    with pytest.raises(TargetError, match="makes no sense"):
        agent.run(says(lines), ["true"], stdin=b"", seconds=5, turn=nullcontext(), check=lambda: None)


def test_an_agent_that_is_silent_is_told_from_a_command_that_does_not_end(
    says: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy guest answers late: that passes, and is no word about the command."""
    monkeypatch.setattr(agent, "_ASK_SECONDS", 0.2)
    folder = says({"guest-exec": b"", "guest-exec-status": b'{"return": {"exited": false}}'})

    def run(seconds: float) -> None:
        with explained("db"):
            agent.run(folder, ["stop", "it"], stdin=b"", seconds=seconds, turn=nullcontext(), check=lambda: None)

    with pytest.raises(SourceUnavailable, match="did not answer about `stop it`"):
        run(60)
    silent = folder / AGENT_SOCKET
    silent.unlink()
    says({"guest-exec": b'{"return": {"pid": 1}}', "guest-exec-status": b'{"return": {"exited": false}}'})
    with pytest.raises(SourceError, match=r"did not end in the guest within 0\.5 s") as ended:
        run(0.5)
    assert not isinstance(ended.value, SourceUnavailable)
