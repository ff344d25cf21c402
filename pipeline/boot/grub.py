"""Boot loader: GRUB, put together from the modules of its packages and written by hand, for no root is here.

Sources: GRUB's manual, "BIOS installation"; grub-core/boot/i386/pc/boot.S and diskboot.S; UEFI specification 2.10,
3.5.1.1 "Removable media boot behaviour".
"""

from __future__ import annotations

from pathlib import Path

from pipeline.boot.command import run
from pipeline.boot.errors import MediumError

FIRST = 1 << 20
"""Where partitions begin, in bytes: everybody's alignment, and room for the boot loader behind an MBR."""
BOOT_AREA = range(512, FIRST)
"""Bytes behind an MBR that belong to no partition: the boot loader's."""
_MODULES = "part_msdos part_gpt fat normal configfile linux search search_fs_uuid echo test sleep halt reboot"
_BIOS_MODULES = f"{_MODULES} biosdisk serial terminal"
_EFI_MODULES = f"{_MODULES} efi_gop efi_uga video"
_BOOT_CODE = 440
"""Bytes of an MBR before the disk's number and the partition table."""


def write_bios_loader(disk: Path, *, grub: Path, search: Path, scratch: Path) -> None:
    """Boot code into the MBR, the core image into the sectors behind it.

    boot.img loads the first sector of the core image from sector 1, which loads the rest from sector 2 on: these places
    are the defaults in both, so nothing has to be patched.
    """
    home = grub / "i386-pc"
    core = scratch / "core.img"
    options = ("-O", "i386-pc", "-d", home, "-o", core, "-p", "/grub", "-c", search)
    run("grub-mkimage", *options, *_BIOS_MODULES.split())
    image = core.read_bytes()
    if len(image) > len(BOOT_AREA):
        raise MediumError(
            f"GRUB has {len(image)} bytes, there is room for {len(BOOT_AREA)}", remedy="fewer GRUB modules"
        )
    with open(disk, "r+b") as file:
        file.write((home / "boot.img").read_bytes()[:_BOOT_CODE])
        file.seek(BOOT_AREA.start)
        file.write(image)


def make_uefi_loader(image: Path, *, grub: Path, search: Path) -> None:
    """The program that firmware without a boot entry starts from a disk's EFI system partition."""
    options = ("-O", "x86_64-efi", "-d", grub / "x86_64-efi", "-o", image, "-p", "/grub", "-c", search)
    run("grub-mkimage", *options, *_EFI_MODULES.split())


def search_script(number: int) -> str:
    """GRUB's first commands: find the partition with its configuration, whatever its disk is called here."""
    return (
        f"search --no-floppy --fs-uuid --set=root {number >> 16:04X}-{number & 0xFFFF:04X}\nset prefix=($root)/grub\n"
    )
