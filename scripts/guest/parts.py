"""Parts: what all guests have in common, made from packages once."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline import boot
from pipeline.boot.cache import Cache, digest
from pipeline.boot.initramfs import modules_of
from pipeline.boot.kernel import find_kernel
from pipeline.boot.packages import fetch, resolve, unpack
from scripts.guest.initramfs import make_initramfs
from scripts.guest.keys import make_host_key, make_user_key
from scripts.guest.userland import make_userland

HERE = Path(__file__).parent
FILES = HERE / "files"

_PACKAGES = (
    "linux-image-amd64",
    "grub-pc-bin",
    "grub-efi-amd64-bin",
    "busybox-static",
    "dropbear-bin",
    "qemu-guest-agent",
)
_SECTIONS = ("libs", "kernel")
"""Of what these need, libraries and the kernel behind its metapackage are enough."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A folder with the parts; also the identity of everything that went into them."""

    folder: Path
    digest: str

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initrd.img"

    @property
    def grub(self) -> Path:
        """GRUB's modules, a folder for each of its platforms."""
        return self.folder / "grub"

    @property
    def root(self) -> Path:
        """Tree of the root file system."""
        return self.folder / "root"

    @property
    def user_key(self) -> Path:
        """Private key for the guest's SSH service, in OpenSSH's format."""
        return self.folder / "user-key"

    @property
    def host_key(self) -> Path:
        """Public key of the guest's SSH service: type and key, as known_hosts has them after the name."""
        return self.folder / "host-key"


def make_parts(cache: Cache) -> Parts:
    """The parts for the packages that this host's lists offer now. Call it while the cache is locked."""
    packages = resolve(_PACKAGES, sections=_SECTIONS)
    identity = digest(packages, files=[*sorted(HERE.glob("*.py")), Path(boot.__file__).parent, FILES])

    def make(folder: Path) -> None:
        files = fetch(packages, cache.packages)
        with tempfile.TemporaryDirectory(prefix="partial-", dir=cache.folder) as tree:
            _fill(Parts(folder, identity), unpack(files, Path(tree)))

    return Parts(cache.entry(identity, make), identity)


def _fill(parts: Parts, packages: Path) -> None:
    kernel = find_kernel(packages)
    shutil.copy(kernel.image, parts.kernel)
    make_initramfs(
        parts.initramfs,
        busybox=packages / "bin/busybox",
        script=FILES / "initramfs/init",
        kernel=kernel,
        modules=modules_of((FILES / "modules").read_text()),
    )
    shutil.copytree(packages / "usr/lib/grub", parts.grub)
    make_userland(parts.root, packages=packages, files=FILES / "root")
    (parts.root / "root/.ssh/authorized_keys").write_text(make_user_key(parts.user_key))
    parts.host_key.write_text(make_host_key(parts.root / "etc/dropbear/dropbear_ed25519_host_key", packages=packages))
