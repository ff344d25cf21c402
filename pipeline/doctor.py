"""What this host needs for failback, looked at piece by piece; each finding with the command that mends it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.errors import FailbackError, StoreError

if TYPE_CHECKING:
    from pipeline.config import Settings
    from pipeline.store.address import S3Address
    from pipeline.store.base import Store

State = Literal["ok", "hint", "bad"]
PYTHON = (3, 11)
OPEN_FILES = 1024
FREE_BYTES = 1 << 30
"""A local copy of an index takes 48 bytes a chunk that holds data: 768 MiB for a TiB."""
SKEW_SECONDS = 60.0
PATIENCE_SECONDS = 15.0

_INSTALL = (
    ("apt-get", "apt-get install -y {0}", {"qemu": "qemu-utils", "ssh": "openssh-client", "ping": "iputils-ping"}),
    ("dnf", "dnf install -y {0}", {"qemu": "qemu-img", "ssh": "openssh-clients", "ping": "iputils"}),
    ("zypper", "zypper install -y {0}", {"qemu": "qemu-tools", "ssh": "openssh-clients", "ping": "iputils"}),
    ("pacman", "pacman -S --noconfirm {0}", {"qemu": "qemu-img", "ssh": "openssh", "ping": "iputils"}),
    ("apk", "apk add {0}", {"qemu": "qemu-img", "ssh": "openssh-client", "ping": "iputils"}),
)
_TOOLS = (
    ("qemu-img", "qemu", "to write qcow2 and VMDK images, not for raw disks"),
    ("qemu-nbd", "qemu", "to read and write disk images, not for raw disks"),
    ("ssh", "ssh", "by the hook `ssh` of checks"),
    ("ping", "ping", "by the hook `ping` of checks"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `bad` stops failback; `hint` stops some uses of it only."""

    about: str
    state: State
    text: str
    remedy: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Everything, in the order in which it should be mended."""
    yield from _python()
    yield from _tools()
    yield from _limits(settings)
    yield from _state(settings)
    yield from _log(settings)
    yield from _rights()
    yield from _repository(settings)


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info[:2] >= PYTHON:
        yield Finding("Python", "ok", version)
    else:
        yield Finding("Python", "bad", f"{version} is too old", remedy="install Python 3.11 or newer")
    wrong = [text for line in metadata.requires("failback") or [] if (text := _requirement(line))]
    if wrong:
        yield Finding("packages", "bad", "; ".join(wrong), remedy="pip install --upgrade failback")
    else:
        yield Finding("packages", "ok", f"failback {metadata.version('failback')} with all it needs")


def _requirement(line: str) -> str:
    """What is wrong with one requirement of ours (`name>=1.2`); nothing for those of extras."""
    match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(?:>=\s*([0-9.]+))?", line)
    if match is None or "extra ==" in line:
        return ""
    name, least = match[1], match[2] or "0"
    try:
        there = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is not installed"
    return f"{name} {there} is older than {least}" if _numbers(there) < _numbers(least) else ""


def _numbers(version: str) -> list[int]:
    match = re.match(r"\d+(\.\d+)*", version)
    return [int(part) for part in match[0].split(".")] if match else []


def _tools() -> Iterator[Finding]:
    for tool, package, use in _TOOLS:
        where = shutil.which(tool)
        if where:
            yield Finding(tool, "ok", where)
        else:
            yield Finding(tool, "hint", f"not found; it is needed {use}", remedy=_install(package))


def _install(what: str) -> str:
    for program, line, names in _INSTALL:
        if shutil.which(program):
            sudo = "" if os.geteuid() == 0 else "sudo "
            return sudo + line.format(names[what])
    return f"install {what} with this system's package manager"


def _limits(settings: Settings) -> Iterator[Finding]:
    available = _available_memory()
    need = (settings.memory_mib << 20) + (128 << 20)
    if available is None:
        yield Finding("memory", "hint", "how much is free cannot be told on this system")
    elif available < need:
        yield Finding(
            "memory",
            "bad",
            f"{available >> 20} MiB are free, a transfer may take {need >> 20} MiB",
            remedy="set FAILBACK_MEMORY_MIB to less, or free some",
        )
    else:
        yield Finding("memory", "ok", f"{available >> 20} MiB are free, a transfer takes up to {need >> 20} MiB")
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        yield Finding("open files", "bad", f"the limit is {soft}", remedy=f"ulimit -n {OPEN_FILES}")
    else:
        shown = "none" if soft == resource.RLIM_INFINITY else str(soft)
        yield Finding("open files", "ok", f"the limit is {shown}")


def _available_memory() -> int | None:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) << 10 if found else None


def _state(settings: Settings) -> Iterator[Finding]:
    folder = settings.state_dir
    trouble = _trouble_writing(folder / f".doctor-{secrets.token_hex(4)}")
    if trouble:
        yield Finding(
            "state folder",
            "bad",
            f"{folder}: {trouble}",
            remedy=f"mkdir -p {folder} && chown {os.geteuid()} {folder}, or set FAILBACK_STATE_DIR",
        )
        return
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        yield Finding(
            "state folder",
            "bad",
            f"{folder} has {free >> 20} MiB free; copies of indexes need about 768 MiB for a TiB of data",
            remedy="free some, or set FAILBACK_STATE_DIR to a larger file system",
        )
    else:
        yield Finding("state folder", "ok", f"{folder}, {free >> 30} GiB free")


def _trouble_writing(path: Path) -> str:
    """Why a file cannot be made there; nothing when it can."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(b"failback")
        path.unlink()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _log(settings: Settings) -> Iterator[Finding]:
    path = settings.log_file or settings.state_dir / "failback.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(path, "ab"):
            pass
    except OSError as error:
        yield Finding(
            "log", "bad", f"{path}: {error.strerror}", remedy=f"chown {os.geteuid()} {path}, or set FAILBACK_LOG_FILE"
        )
    else:
        yield Finding("log", "ok", f"{path}, {path.stat().st_size >> 10} KiB")


def _rights() -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding("rights", "ok", "root: block devices can be read and written")
    else:
        yield Finding(
            "rights", "hint", "block devices may be closed to this user; files are not", remedy="use sudo for them"
        )


def _repository(settings: Settings) -> Iterator[Finding]:
    from pipeline.store.address import S3Address, parse_address
    from pipeline.store.open import open_store

    if not settings.repository:
        yield Finding("repository", "hint", "none is named", remedy="export FAILBACK_REPOSITORY=URL")
        return
    try:
        address = parse_address(settings.repository)
    except FailbackError as error:
        yield Finding("repository", "bad", error.message, error.remedy)
        return
    if isinstance(address, S3Address):
        finding = _credentials(address.profile)
        yield finding
        if finding.state == "bad":
            return
    try:
        store = open_store(address, replace(settings, retry_deadline=PATIENCE_SECONDS))
    except FailbackError as error:
        yield Finding("repository", "bad", error.message, error.remedy)
        return
    bad = False
    try:
        for finding in _contents(store, settings):
            bad = bad or finding.state == "bad"
            yield finding
        if isinstance(address, S3Address) and not bad:  # a store that does not answer is not asked once more
            yield _rules(address)
    finally:
        store.close()


def _credentials(profile: str) -> Finding:
    from pipeline.store.credentials import find_credentials

    try:
        found = find_credentials(profile)
        if found.provider is None:
            return Finding("S3 keys", "ok", "from the environment")
        found.provider()
    except FailbackError as error:
        return Finding("S3 keys", "bad", error.message, error.remedy)
    return Finding("S3 keys", "ok", f"from profile {profile}" if profile else "from boto3's credential chain")


def _rules(address: S3Address) -> Finding:
    """Life-cycle rules of the bucket; one finding, the worst that is there."""
    from pipeline.guard.lifecycle import looked_at

    found = sorted(looked_at(address), key=lambda concern: not concern.loses)
    if not found:
        return Finding("life-cycle rules", "ok", "none takes objects of the repository away")
    worst = found[0]
    return Finding("life-cycle rules", "bad" if worst.loses else "hint", worst.text, worst.remedy)


def _contents(store: Store, settings: Settings) -> Iterator[Finding]:
    from pipeline.catalogue import machines
    from pipeline.keys.sources import locks_of
    from pipeline.repository import Repository

    try:
        repository = Repository.open(store, lambda: locks_of(settings))
        found = machines(repository)
    except FailbackError as error:
        yield Finding("repository", "bad", error.message, error.remedy)
        return
    yield Finding("repository", "ok", f"{store.name}, {len(found)} machine(s), id {repository.document.id}")
    if repository.opened is not None:
        slot = repository.opened.slot
        yield Finding("key", "ok", f"slot {slot.name} ({slot.label}), {slot.role}")
    else:
        yield Finding("key", "hint", "the repository is not encrypted: everybody who can read it can read the disks")
    if repository.conditional_put:
        yield Finding("racing writers", "ok", "the store lets exactly one win")
    else:
        yield Finding(
            "racing writers",
            "hint",
            "the store has no create-only writes",
            remedy="let only one host export a machine at a time",
        )
    yield _clock(store)


def _clock(store: Store) -> Finding:
    from pipeline.store.probe import clock_skew

    key = f"probe/{secrets.token_hex(8)}/clock"
    try:
        skew = clock_skew(store, key)
    except StoreError as error:
        return Finding("clock", "hint", f"not compared with the store's: {error.message}", error.remedy)
    with contextlib.suppress(StoreError):  # an exporter needs no right to delete; eight bytes stay then
        store.delete_many([key])
    if abs(skew) < SKEW_SECONDS:
        return Finding("clock", "ok", f"{abs(skew):.0f} s from the store's")
    where = "behind" if skew > 0 else "ahead of"
    return Finding(
        "clock", "bad", f"{abs(skew):.0f} s {where} the store's", remedy="timedatectl set-ntp true, or chronyc makestep"
    )
