"""Running: a machine in QEMU at the takeover site, whose disk is written to from outside."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from importers.qemu.qmp import Qmp
from pipeline.nbd.address import Address
from pipeline.nbd.client import NbdClient
from scripts.bench import tool
from scripts.bench.difference import CHUNK
from scripts.bench.extents import Extent
from scripts.bench.noise import PIECE, noise

FIRST = 1 << 20
"""Bytes at the beginning of the disk that are the guest's."""
READY = "sector ready"
"""What the guest writes to its serial port when it is up."""
_DISK, _EXPORT, _SOCKET = "disk0", "written", "written.sock"
_SECONDS = 60.0


class Running:
    """A guest of one boot sector, which does nothing, on a qcow2 disk that is full of noise but for its beginning.
    Whoever stops it may start it again, by its command line."""

    def __init__(self, folder: Path, size: int, *, seed: int) -> None:
        """Started, and its disk filled."""
        self.folder, self.size = folder, size
        folder.mkdir(parents=True)
        _make_disk(folder, size)
        leash = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        command = ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-m", "32", "-display", "none"]
        command += ["-nodefaults", "-no-user-config", "-vga", "none", "-serial", "file:console.log"]
        command += ["-qmp", "unix:qmp.sock,server=on,wait=off"]
        command += ["-drive", f"if=none,id={_DISK},format=qcow2,file=disk.qcow2"]
        command += [
            "-device",
            f"virtio-blk-pci,drive={_DISK},bootindex=0,share-rw=on",
        ]  # for those who write from outside
        command += ["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile="]
        with (folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*leash, *command], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + _SECONDS
        while READY not in self._console():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the machine in {folder} did not come up: {(folder / 'qemu.log').read_text()}")
            time.sleep(0.05)
        with self._opened() as disk:
            for place in range(FIRST, size, PIECE):
                disk.write(place, [noise(seed, place, min(PIECE, size - place))])

    def change(self, count: int, *, seed: int) -> list[Extent]:
        """Write noise to so many whole chunks of 64 KiB, one in each equal part of the disk."""
        draw, part = random.Random(seed), (self.size - FIRST) // count // CHUNK
        if not part:
            raise ValueError(f"{self.folder}: the disk is too small for {count} different chunks")
        extents = [Extent(FIRST + (n * part + draw.randrange(part)) * CHUNK, CHUNK) for n in range(count)]
        with self._opened() as disk:
            for extent in extents:
                disk.write(extent.offset, [noise(seed, extent.offset, extent.length)])
            disk.flush()
        return extents

    def forget_changes(self) -> None:
        """Its dirty bitmaps go: as after a QEMU that ended without storing them, or of a format that cannot."""
        with Qmp(self.folder) as qmp:
            for node in qmp.execute("query-named-block-nodes", flat=True):
                for bitmap in node.get("dirty-bitmaps", []):
                    qmp.execute("block-dirty-bitmap-remove", node=node["node-name"], name=bitmap["name"])

    @contextmanager
    def _opened(self) -> Iterator[NbdClient]:
        """The disk, beside the guest. QEMU serves nobody else meanwhile."""
        socket = self.folder / _SOCKET
        with Qmp(self.folder) as qmp:
            [block] = [entry for entry in qmp.execute("query-block") if entry["device"] == _DISK]
            qmp.execute("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
            node = block["inserted"]["node-name"]
            qmp.execute("block-export-add", type="nbd", id=_EXPORT, node_name=node, name=_EXPORT, writable=True)
        address = Address(_EXPORT, path=str(socket))
        client = NbdClient(lambda: address.connect(_SECONDS), _EXPORT, timeout=_SECONDS)
        try:
            yield client
        finally:
            client.close()
            with Qmp(self.folder) as qmp:
                qmp.execute("nbd-server-stop")
            socket.unlink(missing_ok=True)

    def _console(self) -> str:
        with suppress(FileNotFoundError):
            return (self.folder / "console.log").read_text(errors="replace")
        return ""


def end_all(*roots: Path) -> None:
    """Every QEMU that works in a folder below one of these."""
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            program = (link.parent / "cmdline").read_bytes().split(b"\0")[0]
            place = link.resolve(strict=True)
            if b"qemu-system" in program and any(place.is_relative_to(root.resolve()) for root in roots):
                os.kill(int(link.parent.name), signal.SIGKILL)


def _make_disk(folder: Path, size: int) -> None:
    tests = str(tool.ROOT / "tests")
    if tests not in sys.path:
        sys.path.insert(0, tests)
    from simulators.guests import make_guest

    raw = make_guest(folder / "raw", "idles", size)
    subprocess.run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", raw, folder / "disk.qcow2"], check=True)
    raw.unlink()
