"""Packages of the distribution, fetched and unpacked as an ordinary user; nothing is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.boot.command import run
from pipeline.boot.errors import MediumError

_REMEDY = "refresh the package lists (sudo apt-get update) and try again"


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One package as the package lists of this host offer it."""

    name: str
    version: str
    section: str
    """Part of the archive: `libs`, `kernel`, `admin`, …"""
    needs: tuple[str, ...]
    """Names of the packages that it depends on; of alternatives the first."""

    @property
    def file(self) -> str:
        """Name of its file in the cache."""
        return f"{self.name}_{self.version.replace(':', '%3a')}.deb"


def resolve(names: Iterable[str], *, sections: Container[str]) -> list[Package]:
    """The newest version of each package, and of what they need, as far as it belongs to one of `sections`.

    Sorted by name. Raises MediumError when a named package is unknown.
    """
    wanted = set(names)
    known: dict[str, Package] = {}
    looked_up: set[str] = set()
    missing = set(wanted)
    while missing:
        looked_up |= missing
        found = [package for package in _show(missing) if package.name in wanted or package.section in sections]
        known |= {package.name: package for package in found}
        missing = {need for package in found for need in package.needs} - looked_up
    unknown = sorted(wanted - known.keys())
    if unknown:
        raise MediumError(f"apt knows no package {', '.join(unknown)}", remedy=_REMEDY)
    return sorted(known.values())


def fetch(packages: Iterable[Package], folder: Path) -> list[Path]:
    """The files of the packages in `folder`, marked as used; what is not there is downloaded, and appears whole."""
    packages = list(packages)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [package for package in packages if not (folder / package.file).exists()]
    if missing:
        with tempfile.TemporaryDirectory(prefix="partial-", dir=folder) as download:
            wanted = [f"{package.name}={package.version}" for package in missing]
            # Root's downloads would go through a user that can't write here; other users are not concerned.
            options = ["-qq", "-o", "APT::Sandbox::User=root"]
            run("apt-get", *options, "download", *wanted, folder=Path(download), remedy=_REMEDY)
            for package in missing:
                (file,) = Path(download).glob(f"{package.name}_*.deb")
                file.rename(folder / package.file)
    files = [folder / package.file for package in packages]
    for file in files:
        file.touch()
    return files


def unpack(files: Iterable[Path], tree: Path) -> Path:
    """The contents of package files below `tree`."""
    for file in files:
        run("dpkg-deb", "-x", file, tree, remedy=f"remove {file} and try again")
    return tree


def _show(names: Iterable[str]) -> Iterator[Package]:
    """What the package lists say; unknown names are left out."""
    try:
        text = run("apt-cache", "show", "--no-all-versions", *sorted(names))
    except MediumError as error:
        # It fails as a whole when no name at all is known.
        if "No packages found" in error.message:
            return
        raise
    for record in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in record.splitlines() if ": " in line and not line.startswith(" "))
        needs = f"{fields.get('Depends', '')},{fields.get('Pre-Depends', '')}".split(",")
        first = tuple(need.split("|")[0].split("(")[0].split(":")[0].strip() for need in needs)
        yield Package(fields["Package"], fields["Version"], fields["Section"], tuple(need for need in first if need))
