"""The logs of a machine that runs for long take little room, and their ends stay."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from importers.qemu.arguments import SERIAL_LOG
from importers.qemu.events import EVENTS_FILE, read_events
from importers.qemu.observe import console_tail
from importers.qemu.trim import KEEP, trim

MIB = 1 << 20


def occupied(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("name", [SERIAL_LOG, EVENTS_FILE])
def test_only_the_end_takes_room(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    last = b'{"event": "SHUTDOWN", "data": {"reason": "guest-shutdown"}}\n'
    path.write_bytes(b"a guest that talks\n" * (40 * MIB // 19) + last)
    size, end = path.stat().st_size, path.read_bytes()[-KEEP:]
    trim(tmp_path)
    assert occupied(path) <= KEEP + 2 * MIB
    assert path.stat().st_size == size
    assert path.read_bytes()[-KEEP:] == end
    if name == SERIAL_LOG:
        assert console_tail(tmp_path).endswith(last.decode())
    else:
        assert read_events(tmp_path).end == "the guest shut down"


def test_who_writes_meanwhile_goes_on_where_he_is(tmp_path: Path) -> None:
    path = tmp_path / SERIAL_LOG
    with path.open("wb") as file:
        file.write(b"x" * (20 * MIB))
        file.flush()
        trim(tmp_path)
        file.write(b"login:")
    assert path.stat().st_size == 20 * MIB + 6
    assert console_tail(tmp_path).endswith("xlogin:")
    assert occupied(path) <= KEEP + 2 * MIB


def test_short_logs_and_none_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / SERIAL_LOG).write_bytes(b"short")
    trim(tmp_path)
    assert (tmp_path / SERIAL_LOG).read_bytes() == b"short"
    assert not (tmp_path / EVENTS_FILE).exists()


def test_every_look_trims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importers.qemu import observe as module
    from importers.qemu.definition import Definition

    (tmp_path / SERIAL_LOG).write_bytes(b"x" * (20 * MIB))
    monkeypatch.setattr(module, "runs", lambda _folder, _marker: False)
    machine = Definition.__new__(Definition)
    object.__setattr__(machine, "marker", uuid.uuid4())
    module.observe(tmp_path, machine)
    assert occupied(tmp_path / SERIAL_LOG) <= KEEP + 2 * MIB
