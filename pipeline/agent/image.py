"""The disk of a worker: Debian's kernel, and a system that lives in memory and is an agent. One image serves all sites.

It boots by BIOS and by UEFI (not with secure boot) from any bus, opens no port, has no account, and holds no key, no
code and no credentials: its settings come from outside (`files/worker/config`). Transition hosts take the same kernel
and the same initramfs by other media.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import manifests
import pipeline
from pipeline import boot
from pipeline.boot.busybox import install_busybox
from pipeline.boot.cache import Cache, default_folder, digest
from pipeline.boot.command import run
from pipeline.boot.errors import MediumError
from pipeline.boot.fat import make_fat
from pipeline.boot.grub import FIRST, make_uefi_loader, search_script, write_bios_loader
from pipeline.boot.initramfs import add_modules, modules_of, pack
from pipeline.boot.kernel import find_kernel
from pipeline.boot.libraries import libraries, library_path, loader
from pipeline.boot.packages import fetch, resolve, unpack
from pipeline.errors import UsageError

MIB = 1 << 20
FILES = Path(__file__).parent / "files"
LABEL = "FBWORKER"
_SERIAL = 0xFBC0DE01
"""Of the file system with kernel and settings: GRUB finds it by that."""
_PACKAGES = (
    "linux-image-amd64",
    "grub-pc-bin",
    "grub-efi-amd64-bin",
    "busybox-static",
    "ca-certificates",
    "libstdc++6",
    "open-vm-tools",
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
)
_SECTIONS = ("libs", "kernel", "python")
WHEELS = (
    "annotated-doc",
    "annotated-types",
    "blake3",
    "cffi",
    "click",
    "concurrent-log-handler",
    "cryptography",
    "markdown-it-py",
    "mdurl",
    "numpy",
    "obstore",
    "portalocker",
    "pydantic",
    "pydantic-core",
    "pygments",
    "rich",
    "shellingham",
    "typer",
    "typing-extensions",
    "typing-inspection",
    "zstandard",
)
"""What an agent imports, in the versions that are installed here."""
_PLATFORMS = ("manylinux_2_34_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
"""Wheels for Debian 12's C library (2.36) and older ones."""
_NOT_NEEDED = ("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "distutils", "pydoc_data")
_OPTIONS = "console=tty0 console=ttyS0,115200 panic=10 raid=noautodetect"


@dataclass(frozen=True, slots=True)
class _Partition:
    start: int
    size: int


def build_worker(out: Path, *, config: Path | None = None, image_format: str = "raw", cache: Path | None = None) -> int:
    """Make the disk in the new file `out`; returns its size in bytes. Needs no root.

    `config`: settings that go onto the disk, as `worker.conf`; better none that are secret. Fetches packages and wheels
    (some 150 MB) the first time, and whenever the host's package lists have newer ones; otherwise it takes what it made
    before. Raises MediumError, UsageError.
    """
    if out.exists():
        raise UsageError(f"{out} exists already", remedy="name a file that is not there")
    if image_format not in ("raw", "qcow2", "vmdk"):
        raise UsageError(f"a worker's disk can't be made as {image_format}", remedy="use raw, qcow2 or vmdk")
    store = Cache(cache or default_folder("worker"))
    with store.locked():
        packages = resolve(_PACKAGES, sections=_SECTIONS)
        wheels = [f"{name}=={_version(name)}" for name in WHEELS]
        code = [Path(module.__file__ or "").parent for module in (pipeline, manifests, boot)]
        key = digest(packages, wheels, _PLATFORMS, _OPTIONS, files=code)
        parts = store.entry(key, lambda folder: _make_parts(folder, store, fetch(packages, store.packages), wheels))
        with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
            disk = Path(scratch) / "disk"
            _make_disk(disk, parts, config, Path(scratch))
            size = disk.stat().st_size
            if image_format == "raw":
                run("cp", "--sparse=always", disk, f"{out}.part")
            else:
                run("qemu-img", "convert", "-f", "raw", "-O", image_format, disk, f"{out}.part")
            Path(f"{out}.part").replace(out)
    return size


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        raise MediumError(f"{name} is not installed here", remedy="install failback as its README says") from None


# -- what all workers have in common ----------------------------------------------------------------------------------


def _make_parts(folder: Path, store: Cache, files: list[Path], wheels: list[str]) -> None:
    """Kernel, initramfs and GRUB's modules."""
    with tempfile.TemporaryDirectory(prefix="partial-", dir=store.folder) as place:
        packages = unpack(files, Path(place) / "packages")
        tree = Path(place) / "tree"
        busybox = packages / "bin/busybox"
        kernel = find_kernel(packages)
        install_busybox(busybox, tree)
        _add_files(tree)
        _add_python(tree, packages)
        _add_failback(tree, wheels)
        _add_certificates(tree, packages)
        _add_program(tree, packages, packages / "usr/bin/vmware-rpctool")
        for library in sorted((tree / "opt/failback").rglob("*.so*")):
            _add_libraries(tree, packages, library, own=tree)
        _compile(tree, packages)
        add_modules(tree, busybox=busybox, kernel=kernel, modules=modules_of((FILES / "modules").read_text()))
        shutil.copy(kernel.image, folder / "vmlinuz")
        pack(tree, folder / "initrd.img", busybox=busybox, level=15)
        shutil.copytree(packages / "usr/lib/grub", folder / "grub")


def _add_files(tree: Path) -> None:
    (tree / "etc").mkdir(exist_ok=True)
    shutil.copy(FILES / "init", tree / "init")
    shutil.copy(FILES / "inittab", tree / "etc/inittab")
    shutil.copytree(FILES / "worker", tree / "etc/worker")
    # Nobody logs in: the account has no password, and nothing asks for one.
    (tree / "etc/passwd").write_text("root:*:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:*:0:\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (tree / "etc/mdev.conf").write_text('$MODALIAS=.* 0:0 600 @modprobe -qb "$MODALIAS"\n.* 0:0 600\n')
    (tree / "root").mkdir(exist_ok=True)


def _add_python(tree: Path, packages: Path) -> None:
    """The interpreter and its library; modules whose libraries no package brought are left out."""
    _add_program(tree, packages, packages / "usr/bin/python3.11")
    home = packages / "usr/lib/python3.11"
    ignored = shutil.ignore_patterns(*_NOT_NEEDED, "config-3.11-*", "__pycache__")
    shutil.copytree(home, tree / "usr/lib/python3.11", ignore=ignored, symlinks=True)
    for module in sorted((tree / "usr/lib/python3.11/lib-dynload").glob("*.so")):
        try:
            _add_libraries(tree, packages, home / "lib-dynload" / module.name)
        except MediumError:
            module.unlink()


def _add_failback(tree: Path, wheels: list[str]) -> None:
    """The packages of this program as they are installed here, and the wheels that an agent needs."""
    place = tree / "opt/failback"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile", "--only-binary=:all:"]
    options += ["--python-version", "3.11", "--implementation", "cp"]
    for platform in _PLATFORMS:
        options += ["--platform", platform]
    run(sys.executable, "-m", "pip", "install", *options, "--target", place, *wheels)
    shutil.rmtree(place / "bin", ignore_errors=True)
    for folder in sorted(place.rglob("tests")):
        shutil.rmtree(folder, ignore_errors=True)
    for module in (pipeline, manifests):
        source = Path(module.__file__ or "").parent
        shutil.copytree(source, place / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    # Its version and the entry points of exporters, hooks and importers are looked up there.
    found = metadata.distribution("failback")
    information = place / f"failback-{found.version}.dist-info"
    information.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        (information / name).write_text(found.read_text(name) or "")


def _add_certificates(tree: Path, packages: Path) -> None:
    """The authorities that Debian trusts, as its own script would write them."""
    bundle = tree / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True)
    found = sorted((packages / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    bundle.write_text("".join(path.read_text() for path in found))


def _add_program(tree: Path, packages: Path, program: Path) -> None:
    target = tree / program.relative_to(packages)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(program, target)
    _add_libraries(tree, packages, program)


def _add_libraries(tree: Path, packages: Path, program: Path, *, own: Path | None = None) -> None:
    """The shared libraries that a program needs; those that it has in `own` come with it."""
    for library in libraries(packages, program, own=own):
        folder = "lib64" if library.name.startswith("ld-linux") else "lib/x86_64-linux-gnu"
        target = tree / folder / library.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)


def _compile(tree: Path, packages: Path) -> None:
    """With the worker's own interpreter: one that starts from nothing spends seconds on that else."""
    python: list[str | Path] = [
        loader(packages),
        "--library-path",
        library_path(packages),
        packages / "usr/bin/python3.11",
    ]
    options = ["-E", "-s", "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    for folder in ("usr/lib/python3.11", "opt/failback"):
        run("env", f"PYTHONHOME={packages}/usr", *python, *options, "-s", tree, "-p", "/", tree / folder)


# -- one disk ---------------------------------------------------------------------------------------------------------


def _make_disk(disk: Path, parts: Path, config: Path | None, scratch: Path) -> None:
    """An MBR with boot code, GRUB behind it, and one FAT partition: the EFI system partition, kernel and settings."""
    content = sum((parts / name).stat().st_size for name in ("vmlinuz", "initrd.img"))
    partition = _Partition(FIRST, (content // MIB + 24) * MIB)
    with disk.open("xb") as file:
        os.truncate(file.fileno(), FIRST + partition.size + MIB)
    table = f"label: dos\nlabel-id: 0x{_SERIAL:08x}\n"
    table += f"start={FIRST // 512}, size={partition.size // 512}, type=ef, bootable\n"
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk, text=table)
    (scratch / "search").write_text(search_script(_SERIAL))
    (scratch / "grub.cfg").write_text(
        "if serial --unit=0 --speed=115200; then terminal_output console serial; fi\n"
        f"echo 'failback-worker: loading'\nlinux /vmlinuz {_OPTIONS}\ninitrd /initrd.img\nboot\n"
    )
    write_bios_loader(disk, grub=parts / "grub", search=scratch / "search", scratch=scratch)
    make_uefi_loader(scratch / "loader", grub=parts / "grub", search=scratch / "search")
    files = {
        "vmlinuz": parts / "vmlinuz",
        "initrd.img": parts / "initrd.img",
        "grub/grub.cfg": scratch / "grub.cfg",
        "EFI/BOOT/BOOTX64.EFI": scratch / "loader",
    }
    if config is not None:
        files["worker.conf"] = config
    make_fat(disk, partition, label=LABEL, number=_SERIAL, files=files)
