"""How much a machine wrote since it was built: the size of its layer's files, as vSphere lists them (`layoutEx`).

The list is of some moment; `RefreshStorageInfo` makes it one of now (both by VMware's description of the API). That the
file of a snapshot's disk on VMFS and NFS grows with what the guest writes, and how coarsely, is unverified; vSAN and
virtual volumes may list no such files, and then it is not known.
"""

from __future__ import annotations

from typing import Any

from pyVmomi import vim

from importers.vmware.connection import Connection
from importers.vmware.properties import values_of
from importers.vmware.vm import VirtualDisk, Vm

_EXTENT = vim.vm.FileLayoutEx.FileType.diskExtent


def written(connection: Connection, vm: Vm) -> int | None:
    """Bytes of the files that the machine's disks write to. None: one of the disks has no layer, or its files are not
    listed."""
    connection.ask(vm.object.RefreshStorageInfo, f"cannot look at the files of {vm.name}")
    layout = values_of(connection, vm.object, "layoutEx").get("layoutEx")
    if layout is None or not vm.disks:
        return None
    total = 0
    for disk in vm.disks:
        size = _of_top(layout, disk)
        if size is None or disk.file == disk.base:
            return None
        total += size
    return total


def _of_top(layout: Any, disk: VirtualDisk) -> int | None:
    """Of the unit in the disk's chain whose descriptor is the file that the machine uses now."""
    files = {int(file.key): file for file in layout.file or ()}
    for chained in layout.disk or ():
        if int(chained.key) != disk.key:
            continue
        for unit in chained.chain or ():
            there = [files[int(key)] for key in unit.fileKey or () if int(key) in files]
            if any(str(file.name) == disk.file for file in there):
                extents = [int(file.size) for file in there if str(file.type) == _EXTENT]
                return sum(extents) if extents else None
    return None
