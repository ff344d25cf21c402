"""QMP with a real QEMU that has no machine."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from importers.qemu.arguments import QMP_SOCKET
from importers.qemu.qmp import Qmp, QmpError, QmpGone


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """One that QEMU works in, with a name far too long for a socket."""
    folder = tmp_path / ("long-" * 30)
    folder.mkdir()
    process = subprocess.Popen(
        [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "none", "-display", "none"),
            *("-chardev", f"socket,id=qmp,path={QMP_SOCKET},server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
        ],
        cwd=folder,
    )
    try:
        end = time.monotonic() + 30
        while not _answers(folder):
            assert time.monotonic() < end
        yield folder
    finally:
        process.kill()
        process.wait()


def _answers(folder: Path) -> bool:
    try:
        with Qmp(folder):
            return True
    except QmpGone:
        return False


def test_commands_are_answered_one_connection_after_the_other(folder: Path) -> None:
    for _ in range(3):
        with Qmp(folder) as qmp:
            assert qmp.execute("query-status")["status"] == "running"
            assert qmp.execute("query-name") == {}
            assert "." in qmp.monitor("info version")


def test_what_qemu_refuses_is_an_error_and_the_connection_goes_on(folder: Path) -> None:
    with Qmp(folder) as qmp:
        with pytest.raises(QmpError, match="no-such-command"):
            qmp.execute("no-such-command")
        assert qmp.execute("query-status")["running"] is True


def test_clients_wait_for_their_turn(folder: Path) -> None:
    seen: list[bool] = []

    def ask() -> None:
        with Qmp(folder) as qmp:
            seen.append(qmp.execute("query-status")["running"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 4


def test_a_qemu_that_ended_is_gone(folder: Path) -> None:
    with Qmp(folder) as qmp:
        qmp.execute("quit")
    end = time.monotonic() + 30
    while _answers(folder):
        assert time.monotonic() < end
    with pytest.raises(QmpGone, match="is not there"):
        Qmp(folder)


def test_one_that_never_ran_is_gone(tmp_path: Path) -> None:
    with pytest.raises(QmpGone, match="is not there"):
        Qmp(tmp_path)


def test_one_that_does_not_answer_is_waited_for_no_longer_than_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(QMP_SOCKET)
        server.listen()
        started = time.monotonic()
        with pytest.raises(QmpGone, match="does not answer"):
            Qmp(tmp_path, seconds=0.2)
        assert time.monotonic() - started < 5
