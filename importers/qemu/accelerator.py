"""KVM when it works, else TCG."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Wish = Literal["auto", "kvm", "tcg"]
DEVICE = Path("/dev/kvm")
_SECONDS = 10.0
_PROBE = (
    *("-nodefaults", "-no-user-config", "-machine", "q35", "-m", "64", "-accel", "kvm", "-cpu", "host"),
    *("-display", "none", "-boot", "strict=on"),
    *("-chardev", "stdio,id=debug,signal=off", "-device", "isa-debugcon,iobase=0x402,chardev=debug"),
)
_SIGN_OF_LIFE = b"SeaBIOS"


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
    """Empty when a machine runs with it: its firmware is seen to say something.

    That /dev/kvm can be opened is not enough, nor that QEMU starts: hosts that are virtual machines or containers
    themselves often have a KVM that cannot run a processor like theirs.
    """
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return f"there is no {DEVICE}"
    except PermissionError:
        return f"no right to use {DEVICE}: add your user to the group kvm"
    except OSError as error:
        return f"{DEVICE} cannot be opened: {error.strerror}"
    try:
        probe = subprocess.Popen(
            [binary, *_PROBE], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        return f"{binary} cannot be started: {error.strerror}"
    try:
        if _says(probe, _SIGN_OF_LIFE):
            return ""
        probe.kill()
        _out, errors = probe.communicate()
        said = errors.decode(errors="replace").strip().splitlines() or ["the firmware said nothing"]
        return f"a trial machine did not start with KVM: {said[0].rpartition('qemu-system-x86_64: ')[2]}"
    finally:
        probe.kill()
        probe.communicate()


def _says(probe: subprocess.Popen[bytes], sign: bytes) -> bool:
    assert probe.stdout is not None
    end, said = time.monotonic() + _SECONDS, b""
    with selectors.DefaultSelector() as selector:
        selector.register(probe.stdout, selectors.EVENT_READ)
        while selector.select(max(end - time.monotonic(), 0)):
            data = os.read(probe.stdout.fileno(), 4096)
            said += data
            if sign in said:
                return True
            if not data:
                break
    return False
