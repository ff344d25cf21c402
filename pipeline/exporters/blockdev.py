"""What the kernel says of a block device: geometry by ioctl, identity and write counters from sysfs."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from pipeline.exporters.files import FileState

# linux/include/uapi/linux/fs.h
_BLKROGET = 0x125E
_BLKFLSBUF = 0x1261
_BLKSSZGET = 0x1268
_BLKGETSIZE64 = 0x80081272


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """An open block device. Its node in /dev may be a link; sysfs knows it by `number` ("major:minor")."""

    fd: int
    number: str

    @classmethod
    def of(cls, fd: int) -> BlockDevice | None:
        """None when `fd` is not a block device."""
        status = os.fstat(fd)
        if not stat.S_ISBLK(status.st_mode):
            return None
        return cls(fd, f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")

    @property
    def size(self) -> int:
        size: int = struct.unpack("Q", fcntl.ioctl(self.fd, _BLKGETSIZE64, bytes(8)))[0]
        return size

    @property
    def sector_size(self) -> int:
        size: int = struct.unpack("i", fcntl.ioctl(self.fd, _BLKSSZGET, bytes(4)))[0]
        return size

    @property
    def read_only(self) -> bool:
        return bool(struct.unpack("i", fcntl.ioctl(self.fd, _BLKROGET, bytes(4)))[0])

    def drop_cache(self) -> None:
        """Write back and forget cached pages: a file system that was on it wrote around them. Raises OSError."""
        fcntl.ioctl(self.fd, _BLKFLSBUF, 0)

    @property
    def folder(self) -> Path:
        return Path("/sys/dev/block", self.number).resolve()

    @property
    def is_partition(self) -> bool:
        return (self.folder / "partition").exists()

    @property
    def disk(self) -> Path:
        """Folder of the whole disk."""
        return self.folder.parent if self.is_partition else self.folder

    def attribute(self, name: str) -> str:
        """A text attribute of the whole disk in sysfs; empty when it has none."""
        try:
            return (self.disk / name).read_text("utf-8", "replace").strip()
        except OSError:
            return ""

    def serials(self) -> list[str]:
        """Every name under which the disk's maker or platform may know it: serial numbers, WWN, dm UUID."""
        found = [
            self.attribute(name) for name in ("serial", "device/serial", "device/wwid", "wwid", "dm/uuid", "md/uuid")
        ]
        try:
            page = (self.disk / "device/vpd_pg80").read_bytes()  # SCSI unit serial number, SPC-4 7.8.15
        except OSError:
            pass
        else:
            found.append(page[4 : 4 + int.from_bytes(page[2:4], "big")].decode("ascii", "replace"))
        try:
            udev = Path("/run/udev/data", f"b{self.attribute('dev')}").read_text("utf-8", "replace")
        except OSError:
            udev = ""
        for line in udev.splitlines():
            key, _, value = line.removeprefix("E:").partition("=")
            if key in ("ID_SERIAL", "ID_SERIAL_SHORT", "ID_SCSI_SERIAL", "ID_WWN", "ID_WWN_WITH_EXTENSION"):
                found.append(value)
        return list(dict.fromkeys(serial.strip(" \0") for serial in found if serial.strip(" \0")))

    def written(self) -> str | None:
        """Changes with every write or discard that this kernel sent to the disk; None when it does not count them.

        Sectors written and discarded (linux/Documentation/block/stat.rst), tied to this boot and to this instance of
        the device. Requests are not counted, because a flush without data is one, too. For a loop device also the
        state of the file below it, which can be written directly. Cached writes count once they are flushed. Writes
        of other hosts to a shared disk are not seen.
        """
        if self.attribute("queue/iostats") != "1":
            return None
        parts = [_boot(), self.attribute("diskseq"), self.attribute("dm/uuid")]
        for folder in dict.fromkeys((self.folder, self.disk)):
            try:
                fields = (folder / "stat").read_text("utf-8", "replace").split()
            except OSError:
                return None
            if len(fields) < 15 or fields[8] != "0":
                return None  # no discard counters, or requests still under way
            parts += [fields[6], fields[13]]
        backing = self.backing()
        if backing is not None:
            parts.append(backing)
        return None if not parts[0] or not parts[1] else ":".join(parts)

    def backing(self) -> str | None:
        """For a loop device: the state of the file below it, and which part of it is the disk."""
        path = self.attribute("loop/backing_file")
        if not path:
            return None
        try:
            state = FileState.of(Path(path))
        except OSError:
            return f"gone:{os.urandom(8).hex()}"
        return f"{state}:{self.attribute('loop/offset')}:{self.attribute('loop/sizelimit')}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
