"""Machines at the takeover site: small Linuxes in QEMU that beacon, one of them with the database."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

# The builder is not installed: it is found from the top of the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from importers.qemu.qmp import Qmp, QmpGone
from pipeline.boot.cache import default_folder
from pipeline.errors import FailbackError
from scripts.guest import build_guest, takeover
from scripts.guest.recipe import MIB

_CACHE = default_folder()
"""Looked up before tests isolate themselves."""
APPLICATION = Path(__file__).parent / "application"
DATABASE_PORT = 5432
BOOT_SECONDS = 300.0
_READY = "failback-guest ready"


def make_disk(folder: Path, name: str) -> Path:
    """Boots as a machine of that name; nothing of the estate's is on it yet."""
    folder.mkdir(parents=True, exist_ok=True)
    made = build_guest(folder / "made", disks=("system",), name=name, size=128 * MIB, cache=_CACHE)
    disk = folder / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", made.disks[0], disk], check=True)
    return disk


def power_on(folder: Path, disk: Path, *, forward: int = 0, number: int = 1) -> None:
    """Returns at once. `forward`: port of this host that leads to the database; `number`: in its MAC address."""
    command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "256"]
    command += ["-display", "none", "-vga", "std", "-nodefaults", "-no-user-config", "-serial", "file:console.log"]
    command += ["-qmp", "unix:qmp.sock,server=on,wait=off"]
    command += ["-device", "virtio-serial-pci", "-chardev", "socket,id=agent,path=agent.sock,server=on,wait=off"]
    command += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
    leads = f",hostfwd=tcp:127.0.0.1:{forward}-:{DATABASE_PORT}" if forward else ""
    command += ["-netdev", f"user,id=net{leads}"]
    command += ["-device", f"virtio-net-pci,netdev=net,romfile=,mac=52:54:00:fb:00:{number:02x}"]
    command += ["-drive", f"if=none,id=disk0,format={disk.suffix[1:]},file={disk.resolve()}"]
    command += ["-device", "virtio-blk-pci,drive=disk0,bootindex=0"]
    with (folder / "qemu.log").open("wb") as log:
        words = ["setsid", "--fork", *command]
        subprocess.run(words, cwd=folder, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def await_ready(folder: Path, *, database: bool, beacon: int, every: float = 0.05) -> None:
    """It is up, and has the estate's services from now on, at every boot. `beacon`: port that it beacons to, `every` so
    many seconds."""
    end = time.monotonic() + BOOT_SECONDS
    while _READY not in takeover.console(folder):
        assert time.monotonic() < end, takeover.console(folder)[-1500:]
        time.sleep(0.2)
    names = ["beacon", *(["database", "session"] if database else [])]
    # The agent's answer may come too late to be heard; then it is asked again.
    script = ["[ -e /run/installed ] && exit 0", "mkdir /run/installing || exit 1"]
    script += [
        f"cat >/etc/guest/{n} <<'END'\n{(APPLICATION / n).read_text()}END\nchmod 755 /etc/guest/{n}" for n in names
    ]
    script += [f"echo {beacon} >/etc/failback-guest/beacon", f"echo {every * 1e6:.0f} >/etc/failback-guest/every"]
    script += [": >/var/lib/failback-guest/numbers"]
    # Its own journal would take the processor from the other machines.
    script += ["sed -i 's|^::respawn:/etc/guest/journal.*|::once:/bin/touch /run/failback-guest/journal|' /etc/inittab"]
    script += ["echo '::respawn:/etc/guest/beacon' >>/etc/inittab"]
    script += ["echo '::respawn:/etc/guest/database serve' >>/etc/inittab"] if database else []
    script += ["sync", "kill -HUP 1", "killall journal; touch /run/installed"]
    _told(folder, "\n".join(script), end)


def at_every_boot(folder: Path, command: str) -> None:
    """Of a machine that is up: the command runs once at each boot from now on."""
    line = f"::once:/bin/sh -c '{command}'"
    script = f'grep -qxF "{line}" /etc/inittab || echo "{line}" >>/etc/inittab; sync'
    _told(folder, script, time.monotonic() + BOOT_SECONDS)


def _told(folder: Path, script: str, end: float) -> None:
    """As often as it takes: it finds what it did before."""
    while True:
        try:
            takeover.tell(folder, script)
            return
        except (OSError, FailbackError):
            assert time.monotonic() < end, f"no agent in {folder}"
            time.sleep(0.5)


def power_off(folder: Path) -> None:
    """At once, whatever it is doing; nothing when it is off."""
    with suppress(QmpGone), Qmp(folder) as qmp:
        qmp.execute("quit")


def end_all(root: Path) -> None:
    """Every QEMU that works in a folder below `root`."""
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            program = (link.parent / "cmdline").read_bytes().split(b"\0")[0]
            if link.resolve(strict=True).is_relative_to(root.resolve()) and b"qemu-system" in program:
                os.kill(int(link.parent.name), 9)
