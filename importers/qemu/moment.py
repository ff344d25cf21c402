"""The disks of a running QEMU as they are at one moment, while its guest goes on (fleecing).

In one transaction for all disks: a backup job begins that copies what the guest overwrites from now on to a temporary
overlay before it does; a new dirty bitmap begins; and those that mark what changed since the parent are copied as they
are at that moment. The overlays are exported over NBD, with the copies. (qemu/docs/interop/bitmaps.rst;
qemu/docs/interop/live-block-operations.rst; qemu/qapi/transaction.json.)

A bitmap is named once and never again; the point that is exported records the name of the one that began with it
(`change_maps` in its manifest). So nothing needs to be remembered here: the next reading looks which of the parent's
are still there. Older ones are dropped when a later point is known to be committed, and not before.

What a reading that was killed left (job, overlays, export) is taken away by the next one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from importers.qemu.programs import qemu_img
from importers.qemu.qmp import Qmp, QmpError
from importers.qemu.takeover import OURS, Image, Takeover, working_folder
from manifests.manifest import Manifest
from pipeline.errors import SourceBusy, SourceError
from pipeline.exporters.base import Exporter
from pipeline.exporters.nbd import NbdExporter, connect
from pipeline.nbd.address import Address
from pipeline.nbd.client import NbdClient
from pipeline.transfer.change_map import CHANGE_MAP_PREFIX

_GRANULARITY = 65536
"""Bytes a bit: a chunk."""
_SERVER = "nbd-server"
"""Key of the note that an NBD server which runs in this QEMU is ours."""
_SOCKET = "failback-nbd.sock"
_LONGEST = 107
"""Bytes of the name of a Unix socket (unix(7))."""
_COPY = f"{OURS}-copy-"
"""Copies of bitmaps: of one reading, not to be taken for change maps."""
_CONNECTIONS = 4
_TIMEOUT = 60.0


class MomentExporter(NbdExporter):
    """A disk of one moment. Its change maps are known by the names that the parent has for them; the one that begins at
    this moment is empty by that."""

    def __init__(self, name: str, client: NbdClient, copies: dict[str, str], begins: str) -> None:
        super().__init__(name, client)
        self._copies = copies
        self._begins = begins

    def change_maps(self) -> list[str]:
        return [*self._copies, self._begins]

    def changed_extents(self, name: str) -> Iterator[tuple[int, int]]:
        if name == self._begins:
            return iter(())
        return super().changed_extents(self._copies[name])


@contextmanager
def alone(takeover: Takeover) -> Iterator[None]:
    """One reading at a time: QEMU has one NBD server. Raises SourceBusy."""
    descriptor = os.open(takeover.folder / f"{OURS}-reading.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SourceBusy(
                f"another process of failback reads the disks of {takeover.machine}", remedy="wait for it, or end it"
            ) from None
        yield
    finally:
        os.close(descriptor)


def take(
    takeover: Takeover, qmp: Qmp, images: Sequence[Image], parent: Manifest | None
) -> list[tuple[dict[str, str], str]]:
    """The moment: what it returns for each disk are the copies of the parent's bitmaps by the names of those, and the
    name of the bitmap that begins now. Raises SourceError; nothing is left then."""
    number = secrets.token_hex(8)
    begins = f"{CHANGE_MAP_PREFIX}-{number}"
    actions: list[tuple[str, dict[str, object]]] = []
    found = []
    for place, image in enumerate(images):
        overlay = _overlay(takeover, place)
        qemu_img("create", "-q", "-f", "qcow2", str(overlay), str(image.size), folder=takeover.folder)
        node = {"driver": "qcow2", "node-name": _node(place), "backing": image.node}
        qmp.execute(
            "blockdev-add",
            **node,
            file={"driver": "file", "node-name": f"{_node(place)}-file", "filename": str(overlay.resolve())},
        )
        actions.append(
            ("blockdev-backup", {"job-id": _job(place), "device": image.node, "target": _node(place), "sync": "none"})
        )
        new = {"node": image.node, "name": begins, "granularity": _GRANULARITY, "persistent": image.format == "qcow2"}
        actions.append(("block-dirty-bitmap-add", new))
        copies = {name: f"{_COPY}{number}-{n}" for n, name in enumerate(_known(image, parent, place))}
        for name, copy in copies.items():
            about = {"node": image.node, "name": copy, "granularity": _GRANULARITY, "disabled": True}
            actions.append(("block-dirty-bitmap-add", about))
            actions.append(("block-dirty-bitmap-merge", {"node": image.node, "target": copy, "bitmaps": [name]}))
        found.append((copies, begins))
    qmp.execute("transaction", actions=[{"type": kind, "data": data} for kind, data in actions])
    return found


def serve(takeover: Takeover, qmp: Qmp, found: Sequence[tuple[dict[str, str], str]]) -> None:
    """Export the disks of that moment."""
    path = _listening(takeover, qmp)
    takeover.note(_SERVER, "ours")
    try:
        qmp.execute("nbd-server-start", addr={"type": "unix", "data": {"path": path}}, max_connections=0)
    except QmpError as error:
        takeover.note(_SERVER, "")
        raise SourceError(
            f"{takeover.machine}: {error.message}",
            remedy="if QEMU serves disks by NBD for somebody else: end that (nbd-server-stop) first",
        ) from error
    for place, (copies, _begins) in enumerate(found):
        qmp.execute(
            "block-export-add",
            type="nbd",
            id=_node(place),
            node_name=_node(place),
            name=f"disk{place}",
            bitmaps=list(copies.values()),
        )


@contextmanager
def opened(takeover: Takeover, found: Sequence[tuple[dict[str, str], str]]) -> Iterator[list[Exporter]]:
    """Of a moment that is served."""
    exporters: list[Exporter] = []
    directory = os.open(takeover.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for place, (copies, begins) in enumerate(found):
            address = Address(f"disk{place}", path=f"/proc/self/fd/{directory}/{_SOCKET}")
            name = f"disk {place} of {takeover.machine}"

            def client(address: Address = address) -> NbdClient:
                return NbdClient(
                    lambda: address.connect(_TIMEOUT), address.export, connections=_CONNECTIONS, timeout=_TIMEOUT
                )

            exporters.append(MomentExporter(name, connect(name, client), copies, begins))
        yield exporters
    finally:
        for exporter in exporters:
            exporter.close()
        os.close(directory)


def clear(takeover: Takeover, qmp: Qmp) -> None:
    """Nothing of a reading is left, but the bitmap that began with it."""
    if takeover.get(_SERVER):
        with suppress(QmpError):  # it does not run
            qmp.execute("nbd-server-stop")
        takeover.note(_SERVER, "")
    for job in qmp.execute("query-block-jobs"):
        if str(job["device"]).startswith(OURS):
            with suppress(QmpError):  # it ends by itself just now
                qmp.execute("block-job-cancel", device=job["device"], force=True)
    _until_gone(qmp)
    found = qmp.execute("query-named-block-nodes", flat=True)
    nodes = [str(node["node-name"]) for node in found]
    for name in nodes:
        if name.startswith(OURS) and not name.endswith("-file"):
            qmp.execute("blockdev-del", node_name=name)
    for name in nodes:
        if name.startswith(OURS) and name.endswith("-file"):
            with suppress(QmpError):  # it went with the overlay
                qmp.execute("blockdev-del", node_name=name)
    for node in found:
        for bitmap in node.get("dirty-bitmaps", []):
            if str(bitmap.get("name", "")).startswith(_COPY):
                qmp.execute("block-dirty-bitmap-remove", node=node["node-name"], name=bitmap["name"])
    clear_files(takeover)


def clear_files(takeover: Takeover) -> None:
    for path in takeover.folder.glob(f"{OURS}-moment*.qcow2"):
        path.unlink()
    (takeover.folder / _SOCKET).unlink(missing_ok=True)


def forget_maps(qmp: Qmp, images: Sequence[Image], manifest: Manifest) -> None:
    """Change maps of ours that the point does not know go; unless it knows none of those that are there, for then it is
    of another reading."""
    for place, image in enumerate(images):
        known = set(_known(image, manifest, place))
        for name in [*image.bitmaps, *image.broken] if known else image.broken:
            if name.startswith(CHANGE_MAP_PREFIX) and name not in known and not name.startswith(_COPY):
                qmp.execute("block-dirty-bitmap-remove", node=image.node, name=name)


def room(takeover: Takeover) -> int:
    """Bytes that overlays may have."""
    status = os.statvfs(takeover.folder)
    return status.f_bavail * status.f_frsize


def _listening(takeover: Takeover, qmp: Qmp) -> str:
    """The path by which QEMU makes the socket: as it stands in the folder that QEMU works in, where that is shorter."""
    path = str((takeover.folder / _SOCKET).resolve())
    path = min(path, os.path.relpath(path, working_folder(qmp.process)), key=len)
    if len(os.fsencode(path)) > _LONGEST:
        raise SourceError(
            f"{takeover.machine}: the path of {takeover.folder} is too long for a socket in it that QEMU makes",
            remedy="start QEMU in that folder, or give the machine a folder with a shorter path",
        )
    return path


def _known(image: Image, manifest: Manifest | None, number: int) -> list[str]:
    """The bitmaps of this disk that began with a point."""
    disks = manifest.disks if manifest is not None else ()
    maps = next((disk.change_maps for disk in disks if disk.number == number), ())
    return [name for name in maps if name in image.bitmaps]


def _until_gone(qmp: Qmp) -> None:
    end = time.monotonic() + _TIMEOUT
    while any(str(job["device"]).startswith(OURS) for job in qmp.execute("query-block-jobs")):
        if time.monotonic() > end:
            raise SourceError("a backup job of ours in QEMU does not end", remedy="look what its storage waits for")
        time.sleep(0.02)


def _node(place: int) -> str:
    return f"{OURS}-moment{place}"


def _job(place: int) -> str:
    return f"{OURS}-backup{place}"


def _overlay(takeover: Takeover, place: int) -> Path:
    return takeover.folder / f"{OURS}-moment{place}.qcow2"
