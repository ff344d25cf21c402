"""What QEMU said while nobody listened."""

from __future__ import annotations

import json
import time
from pathlib import Path

from importers.qemu.events import EVENTS_FILE, Events, read_events


def say(folder: Path, *events: tuple[str, dict[str, object]], ago: float = 0) -> None:
    seconds, rest = divmod(time.time() - ago, 1)
    with (folder / EVENTS_FILE).open("a") as file:
        for event, data in events:
            stamp = {"seconds": int(seconds), "microseconds": int(rest * 1e6)}
            file.write(json.dumps({"timestamp": stamp, "event": event, "data": data}) + "\r\n")


RESET: tuple[str, dict[str, object]] = ("RESET", {"guest": True, "reason": "guest-reset"})


def test_without_a_file_nothing_happened(tmp_path: Path) -> None:
    assert read_events(tmp_path) == Events()


def test_the_end_is_told_in_words_and_lines_that_were_cut_are_left_out(tmp_path: Path) -> None:
    (tmp_path / EVENTS_FILE).write_text('{"QMP": {}}\n{"return": {}}\n[1]\n{"event": "SHUTD\n')
    say(tmp_path, ("GUEST_PANICKED", {}), ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}))
    events = read_events(tmp_path)
    assert (events.end, events.panic) == ("the guest shut down", True)
    say(tmp_path, ("SHUTDOWN", {"reason": "something new"}))
    assert read_events(tmp_path).end == "QEMU ended: something new"


def test_few_resets_are_a_reboot_and_many_at_once_a_loop(tmp_path: Path) -> None:
    say(tmp_path, RESET, RESET, RESET, ago=600)
    say(tmp_path, RESET, RESET)
    assert read_events(tmp_path).loop == ""
    say(tmp_path, RESET)
    assert read_events(tmp_path).loop == "it keeps resetting: 3 times in the last 120 s"
    assert len(read_events(tmp_path).resets) == 6


def test_a_long_history_is_read_from_its_end(tmp_path: Path) -> None:
    say(tmp_path, *[RESET] * 20_000)
    say(tmp_path, ("SHUTDOWN", {"reason": "host-signal"}))
    started = time.monotonic()
    events = read_events(tmp_path)
    assert time.monotonic() - started < 1
    assert events.end == "QEMU was ended by a signal from outside"


def test_the_disk_of_an_io_error_and_the_agent_are_seen(tmp_path: Path) -> None:
    failure = {"device": "", "node-name": "disk1", "operation": "write", "nospace": True, "reason": "x"}
    say(tmp_path, ("VSERPORT_CHANGE", {"open": True, "id": "c"}), ("BLOCK_IO_ERROR", failure))
    say(tmp_path, ("VSERPORT_CHANGE", {"open": False, "id": "c"}))
    events = read_events(tmp_path)
    assert events.agent_seen
    assert events.io_error == "I/O error on disk1 (write): no space left at the host"
