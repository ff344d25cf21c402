"""Boot loader: GRUB, put together from the modules of its packages and written by hand, for no root is here.

Sources: GRUB's manual, "BIOS installation"; grub-core/boot/i386/pc/boot.S and diskboot.S; UEFI specification 2.10,
3.5.1.1 "Removable media boot behaviour".
"""

from __future__ import annotations

from pathlib import Path

from scripts.guest.command import run
from scripts.guest.errors import GuestError
from scripts.guest.partitions import BOOT_AREA
from scripts.guest.recipe import Recipe

_MODULES = "part_msdos part_gpt fat normal configfile linux search search_fs_uuid echo test sleep halt reboot"
_BIOS_MODULES = f"{_MODULES} biosdisk serial terminal"
_EFI_MODULES = f"{_MODULES} efi_gop efi_uga video"
_BOOT_CODE = 440
"""Bytes of an MBR before the disk's number and the partition table."""

KERNEL_OPTIONS = (
    "console=tty0 console=ttyS0,115200 rw panic=0 "
    # What costs an emulated processor seconds, and a throw-away machine doesn't need.
    "mitigations=off nokaslr audit=0 apparmor=0 cryptomgr.notests random.trust_cpu=on 8250.nr_uarts=1"
)


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
        raise GuestError(
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


def configuration(recipe: Recipe) -> str:
    """grub.cfg: no menu; the kernel with its console on screen and serial port. UEFI mirrors the console by itself."""
    lines = []
    if recipe.firmware == "bios":
        lines.append("if serial --unit=0 --speed=115200; then terminal_output console serial; fi")
    mode = "" if recipe.mode == "normal" else f" guest.mode={recipe.mode}"
    lines += [
        f"echo 'failback-guest: loading {recipe.name}'",
        f"linux /vmlinuz root=UUID={recipe.uuid('root')} {KERNEL_OPTIONS}{mode}",
        "initrd /initrd.img",
        "boot",
    ]
    return "\n".join(lines) + "\n"
