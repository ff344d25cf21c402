"""The source of kind `qemu` with a guest that has an agent, file systems and a service that writes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transfer.killing import in_child, kill_at

from importers.qemu import agent, moment
from importers.qemu.qmp import Qmp
from importers.qemu.source import QemuSource
from pipeline.errors import SourceError
from pipeline.home.control import Controller
from pipeline.home.folder import PlaceFolder
from pipeline.source import Reading, SourceContext
from scripts.guest import build_guest, takeover
from sources.contract.harness import content

pytestmark = pytest.mark.slow
READY = "failback-guest ready"
BOOT_SECONDS = 400
"""Ten on a host that has nothing else to do."""
TELL = """for process in /proc/[0-9]*; do
    tr '\\0' ' ' <$process/cmdline | grep -q '^/bin/sh /etc/guest/journal write' && kill -%s ${process#/proc/}
done 2>/dev/null
"""
"""The service of this guest is one that can be told to hold still."""
NUMBER = "cat /run/failback-guest/journal"
SAID = f'echo "acknowledged $({NUMBER})" >/dev/ttyS0; stty -F /dev/ttyS0 -echo'
"""Ends when the line has left the machine, for which a change of the settings waits: it is paused next."""


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a machine that works."""
    root = tmp_path_factory.mktemp("guest")
    # The environment of the tests has no home; what was built before is kept in the person's own.
    built = build_guest(root / "built", cache=Path("~/.cache/failback/guest").expanduser())
    takeover.start(root / "machine", built.disks[0], ready=READY, seconds=BOOT_SECONDS)
    try:
        yield root / "machine"
    finally:
        with Qmp(root / "machine") as qmp:
            qmp.execute("quit")


@pytest.fixture
def source(tmp_path: Path) -> QemuSource:
    return QemuSource(
        SourceContext(tmp_path / "state", Controller(), lambda machine: PlaceFolder(tmp_path / "journal" / machine))
    )


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "quiesce": ["/bin/sh", "-c", f"{TELL % 'STOP'} sleep 0.3; {SAID}"],
        "unquiesce": ["/bin/sh", "-c", f"{TELL % 'CONT'} true"],
        **more,
    }


def written(folder: Path) -> int:
    return int(takeover.tell(folder, NUMBER))


def frozen(folder: Path) -> str:
    return str(agent.ask(folder, "guest-fsfreeze-status", seconds=30))


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def boots_with(tmp_path: Path, reading: Reading) -> int:
    """Records in the journal of a machine that starts from this disk, all whole and in order."""
    disk = tmp_path / "disk.raw"
    disk.write_bytes(content(reading, 0))
    takeover.start(tmp_path / "home", disk, ready=READY, seconds=BOOT_SECONDS)
    with Qmp(tmp_path / "home") as qmp:
        qmp.execute("quit")
    found = re.search(r"journal: (\d+) records, intact", takeover.console(tmp_path / "home"))
    assert found, takeover.console(tmp_path / "home")[-1000:]
    return int(found[1])


def test_nothing_stands_against_it(guest: Path, source: QemuSource) -> None:
    findings = source.preflight("vm", settings(guest))
    assert [finding for finding in findings if finding.severity == "error"] == []


def test_a_moment_of_a_machine_at_work_is_whole_and_it_goes_on(guest: Path, source: QemuSource, tmp_path: Path) -> None:
    before = written(guest)
    with source.reading("vm", settings(guest), parent=None, final=False) as reading:
        assert reading.consistency == "filesystem"
        assert reading.machine is not None
        assert (reading.machine.cpus, reading.machine.memory_bytes, len(reading.machine.nics)) == (2, 512 << 20, 1)
        assert reading.disks[0].bus == "virtio"
        assert frozen(guest) == "thawed"
        now = written(guest)
        assert eventually(lambda: written(guest) > now + 3)
        assert boots_with(tmp_path, reading) >= before


def test_killed_while_it_is_frozen_the_guest_thaws(guest: Path, source: QemuSource) -> None:
    def doomed() -> None:
        kill_at(pytest.MonkeyPatch(), [(moment, "take")], -1)
        with source.reading("vm", settings(guest), parent=None, final=False):
            raise AssertionError("it lives")

    assert in_child(doomed)
    assert eventually(lambda: frozen(guest) == "thawed")
    now = written(guest)
    assert eventually(lambda: written(guest) > now)
    with source.reading("vm", settings(guest), parent=None, final=False) as reading:
        assert reading.disks[0].exporter.size
    assert list(guest.glob("failback-moment*")) == []


def test_a_program_that_fails_in_the_guest_ends_quiesce_and_the_machine_goes_on(
    guest: Path, source: QemuSource
) -> None:
    wrong = settings(guest, quiesce=["/bin/sh", "-c", "echo no such service >&2; exit 5"])
    with pytest.raises(SourceError, match="exit code 5 in the guest: no such service"):
        source.quiesce("vm", wrong, epoch=1)
    source.resume("vm", wrong, epoch=1)
    assert source.observe("vm", wrong).power == "on"
    now = written(guest)
    assert eventually(lambda: written(guest) > now)


def test_what_was_acknowledged_before_quiesce_comes_home_and_the_way_back_is_open(
    guest: Path, source: QemuSource, tmp_path: Path
) -> None:
    source.quiesce("vm", settings(guest), epoch=2)
    state = source.observe("vm", settings(guest))
    assert (state.power, state.quiesced) == ("paused", True)
    acknowledged = int(re.findall(r"acknowledged (\d+)", takeover.console(guest))[-1])
    with source.reading("vm", settings(guest), parent=None, final=True) as reading:
        assert reading.consistency == "application"
        assert boots_with(tmp_path, reading) >= acknowledged > 0
    source.resume("vm", settings(guest), epoch=3)
    assert frozen(guest) == "thawed"
    assert eventually(lambda: written(guest) > acknowledged)


def test_it_is_stopped_and_started_again_as_it_was(guest: Path, source: QemuSource) -> None:
    for verb in ("quiesce", "stop", "lock"):
        getattr(source, verb)("vm", settings(guest), epoch=4)
    assert "nobody has" in source.prove_stopped("vm", settings(guest)).seen
    (guest / takeover.CONSOLE).unlink()
    source.resume("vm", settings(guest), epoch=5)
    assert eventually(lambda: READY in takeover.console(guest), BOOT_SECONDS)
    assert re.search(r"journal: \d+ records, intact", takeover.console(guest))
    assert written(guest) > 0


def test_a_machine_at_work_is_shut_down_in_order(guest: Path, source: QemuSource) -> None:
    source.stop("vm", settings(guest), epoch=6, seconds=60)
    assert "failback-guest stopped" in takeover.console(guest)
    assert source.observe("vm", settings(guest)).proved_off
    source.resume("vm", settings(guest), epoch=7)
    assert eventually(lambda: READY in takeover.console(guest), BOOT_SECONDS)
