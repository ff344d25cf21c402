"""What the boot loader is told: the kernel and its options."""

from __future__ import annotations

from scripts.guest.recipe import Recipe

KERNEL_OPTIONS = (
    "console=tty0 console=ttyS0,115200 rw panic=0 "
    # What costs an emulated processor seconds, and a throw-away machine doesn't need.
    "mitigations=off nokaslr audit=0 apparmor=0 cryptomgr.notests random.trust_cpu=on 8250.nr_uarts=1"
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
