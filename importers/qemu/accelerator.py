"""KVM when it works, else TCG."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from importers.qemu import counting

Wish = Literal["auto", "kvm", "tcg"]
DEVICE = Path("/dev/kvm")
_SECONDS = 10.0
_PROBE = (
    *("-nodefaults", "-no-user-config", "-machine", "q35", "-m", "64", "-accel", "kvm", "-cpu", "host"),
    *("-display", "none", "-boot", "strict=on"),
    *("-chardev", "stdio,id=debug,signal=off", "-device", "isa-debugcon,iobase=0x402,chardev=debug"),
    *("-device", "virtio-blk-pci,drive=disk"),
)
_FIRMWARE = b"SeaBIOS"


@dataclass(frozen=True, slots=True)
class Accelerator:
    kind: Literal["kvm", "tcg"]
    why: str


def choose(binary: str, wish: Wish) -> Accelerator:
    """What `wish` comes to on this host: TCG where KVM was wished for but does not work."""
    if wish == "tcg":
        return Accelerator("tcg", "asked for")
    trouble = why_not_kvm(binary)
    return Accelerator("tcg", trouble) if trouble else Accelerator("kvm", "it works here")


def why_not_kvm(binary: str) -> str:
    """Empty when a machine runs with it: a program that it boots is seen to count (importers/qemu/counting.py).

    That /dev/kvm can be opened is not enough, nor that QEMU starts: hosts that are virtual machines or containers
    themselves often have a KVM that cannot run a processor like theirs. Nor that firmware says something: there are
    some whose KVM interprets what runs without paging, a hundred times slower than QEMU would.
    """
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no {DEVICE}"
    except PermissionError:
        return f"no right to use {DEVICE}: add your user to the group kvm"
    except OSError as error:
        return f"{DEVICE} cannot be opened: {error.strerror}"
    disk = os.memfd_create("failback-counting")
    try:
        os.write(disk, counting.image())
        drive = f"file=/proc/self/fd/{disk},format=raw,if=none,id=disk,readonly=on"
        probe = subprocess.Popen(
            [binary, *_PROBE, "-drive", drive],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[disk],
        )
    except OSError as error:
        return f"{binary} cannot be started: {error.strerror}"
    finally:
        os.close(disk)
    try:
        said = _says(probe, counting.SAYS)
        if counting.SAYS in said:
            return ""
        if _FIRMWARE in said and probe.poll() is None:
            return (
                f"a trial machine is too slow with KVM: it did not count in {_SECONDS:.0f} s what takes QEMU alone one"
            )
        probe.kill()
        _out, errors = probe.communicate()
        lines = errors.decode(errors="replace").strip().splitlines() or ["the firmware said nothing"]
        return f"a trial machine did not start with KVM: {lines[0].rpartition('qemu-system-x86_64: ')[2]}"
    finally:
        probe.kill()
        probe.communicate()


def _says(probe: subprocess.Popen[bytes], sign: bytes) -> bytes:
    """What it said until the sign came, or no more does."""
    assert probe.stdout is not None
    end, said = time.monotonic() + _SECONDS, b""
    with selectors.DefaultSelector() as selector:
        selector.register(probe.stdout, selectors.EVENT_READ)
        while sign not in said and selector.select(max(end - time.monotonic(), 0)):
            data = os.read(probe.stdout.fileno(), 4096)
            said += data
            if not data:
                break
    return said
