"""Where UEFI firmware for QEMU is on this host.

Distributions describe theirs in files (qemu/docs/interop/firmware.json); where these are missing or say nothing that
fits, the places known of Debian, Fedora, SUSE and Arch are tried.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Format = Literal["raw", "qcow2"]

DESCRIPTIONS = (Path("/etc/qemu/firmware"), Path("/usr/share/qemu/firmware"))
"""A file in an earlier folder hides its namesake in a later one."""


@dataclass(frozen=True, slots=True)
class Flash:
    """Code, and the template of the variables that every machine gets a copy of."""

    code: Path
    template: Path
    secure: bool = False
    code_format: Format = "raw"
    template_format: Format = "raw"


def _pair(code: str, template: str, *, secure: bool = False) -> Flash:
    return Flash(Path(code), Path(template), secure)


KNOWN = (
    # Debian, Ubuntu
    _pair("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    _pair("/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd", secure=True),
    _pair("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    _pair("/usr/share/OVMF/OVMF_CODE.ms.fd", "/usr/share/OVMF/OVMF_VARS.ms.fd", secure=True),
    # Fedora and its kin
    _pair("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    _pair("/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.secboot.fd", secure=True),
    # SUSE
    _pair("/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin"),
    _pair("/usr/share/qemu/ovmf-x86_64-smm-ms-code.bin", "/usr/share/qemu/ovmf-x86_64-smm-ms-vars.bin", secure=True),
    # Arch
    _pair("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
)


def find_flash(board: Literal["q35", "pc"], *, secure: bool) -> Flash | None:
    """Firmware for this board that enforces secure boot with the usual keys, or has no such thing. None: there is none
    on this host."""
    for flash in (*_described(board), *KNOWN):
        fits = flash.secure == secure and (board == "q35" or not flash.secure)
        if fits and flash.code.is_file() and flash.template.is_file():
            return flash
    return None


def _described(board: str) -> Iterator[Flash]:
    files: dict[str, Path] = {}
    for folder in reversed(DESCRIPTIONS):
        files |= {path.name: path for path in folder.glob("*.json")}
    for _name, path in sorted(files.items()):
        try:
            flash = _flash(json.loads(path.read_bytes()), board)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # empty: it hides another; anything else is for its maker to mend
        if flash is not None:
            yield flash


def _flash(description: dict[str, Any], board: str) -> Flash | None:
    mapping, features = description["mapping"], set(description["features"])
    machine = {"q35": "pc-q35", "pc": "pc-i440fx"}[board]
    targets = [t for t in description["targets"] if t["architecture"] == "x86_64"]
    if (
        "uefi" not in description["interface-types"]
        or mapping["device"] != "flash"
        or mapping.get("mode", "split") != "split"
        or not any(pattern.startswith(machine) for target in targets for pattern in target["machines"])
        or features & {"amd-sev-es", "amd-sev-snp", "intel-tdx"}
    ):
        return None
    guarded = {"secure-boot", "enrolled-keys", "requires-smm"}
    if features & guarded and not features >= guarded:
        return None  # able to, but without keys it enforces nothing
    code, template = mapping["executable"], mapping["nvram-template"]
    if not {code["format"], template["format"]} <= {"raw", "qcow2"}:
        return None
    return Flash(
        Path(code["filename"]), Path(template["filename"]), features >= guarded, code["format"], template["format"]
    )
