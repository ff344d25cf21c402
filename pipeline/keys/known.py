"""What this host remembers of repositories: which one is at an address, and how far each machine had come there.

Losing it loses a warning, never data: a fresh host has to compare with the recovery sheet (`failback key export`).
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from manifests.names import decode_machine, encode_machine
from manifests.repository import RepositoryDocument
from manifests.sealing import Sealing
from pipeline.errors import Forged, KeyRefused


@dataclass(frozen=True, slots=True)
class Expected:
    """What a configuration says the repository is; empty for anything."""

    repository_id: str = ""
    fingerprint: str = ""

    def check(self, document: RepositoryDocument, name: str) -> None:
        """Raises KeyRefused."""
        if self.repository_id and self.repository_id.lower() != document.id:
            raise KeyRefused(
                f"{name} is repository {document.id}, not {self.repository_id} as the setting repository_id says",
                remedy="check the address; if the repository was replaced on purpose correct the setting",
            )
        found = document.encryption.fingerprint if document.encryption else ""
        if self.fingerprint and self.fingerprint.lower() != found:
            raise KeyRefused(
                f"{name} {f'has the key fingerprint {found}' if found else 'is not encrypted'}, the setting "
                f"key_fingerprint says {self.fingerprint}",
                remedy="do not use it: somebody may have put another repository in its place; compare with the recovery"
                " sheet",
            )


class Pin:
    """The repository that this host found at an address the first time."""

    def __init__(self, state: Path, address: str) -> None:
        self._address = address
        self._path = state / "repositories" / f"{blake3(address.encode()).hexdigest(16)}.json"

    def check(self, document: RepositoryDocument) -> None:
        """Raises KeyRefused when another one was here before."""
        found = document.encryption.fingerprint if document.encryption else None
        try:
            known = json.loads(self._path.read_text())
            before = (str(known["id"]), known["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        if before == (document.id, found):
            return
        if found is None and before[1] is not None:
            what = "is not encrypted; the repository known here was"
        elif before[0] != document.id:
            what = f"is repository {document.id}; the one known here was {before[0]}"
        else:
            what = f"has the key fingerprint {found}; the one known here was {before[1]}"
        raise KeyRefused(
            f"{self._address} {what}",
            remedy=f"somebody may have put another repository in its place; if it was you, remove {self._path}",
        )

    def remember(self, document: RepositoryDocument, *, anew: bool = False) -> None:
        """Once it was opened; later ones have to be the same."""
        if not anew and self._path.exists():
            return
        found = document.encryption.fingerprint if document.encryption else None
        _write(self._path, json.dumps({"address": self._address, "id": document.id, "fingerprint": found}) + "\n")


class Seen:
    """The newest sequence this host has seen of each machine, the manifests of its points, and the newest keys. A
    bucket that was set back shows less, one that was written by a thief something else. For many threads."""

    def __init__(self, state: Path, repository: str) -> None:
        self._folder = state / repository / "seen"
        self._manifests = state / repository / "manifests"
        self._hashes: dict[str, dict[int, str]] = {}
        self._lock = threading.Lock()
        self._keys = state / repository / "keys.json"

    def notice_keys(self, sealing: Sealing, name: str) -> None:
        """Raises KeyRefused when renewed keys or revocations that were there are gone: this host would write with keys
        that were given up, or believe a writer who is not to be believed any more."""
        try:
            known = json.loads(self._keys.read_text())
            generation, revoked = int(known["generation"]), {str(writer) for writer in known["revoked"]}
        except (OSError, ValueError, KeyError, TypeError):
            generation, revoked = 0, set()
        there = {writer.hex() for writer in sealing.revoked}
        lost = [f"generation {generation} of its keys"] if sealing.generation < generation else []
        lost += [f"keys/revoked/{writer}" for writer in sorted(revoked - there)]
        if lost:
            raise KeyRefused(
                f"{name} was set back: {' and '.join(lost)} had been there when this host last looked",
                remedy="somebody may want old keys to be used again: restore the objects under keys/ from the bucket's"
                f" older versions; if they were taken away on purpose, remove {self._keys}",
            )
        if (sealing.generation, there) != (generation, revoked):
            _write(self._keys, json.dumps({"generation": sealing.generation, "revoked": sorted(there)}) + "\n")

    def notice(self, machine: str, newest: int, name: str) -> None:
        """Raises KeyRefused when the repository has gone back behind what was seen."""
        path = self._folder / encode_machine(machine)
        try:
            known = int(path.read_text())
        except (OSError, ValueError):
            known = 0
        if newest < known:
            raise KeyRefused(
                f"{name} was set back: {machine} had come to point {known} when this host last looked, and is at"
                f" {newest or 'none'} now",
                remedy="somebody may have put an older state of the bucket in its place: ask who did, look for newer"
                f" versions of its objects; if it was restored on purpose, remove {path}",
            )
        if newest > known:
            _write(path, f"{newest}\n")

    def heights(self) -> dict[str, int]:
        """Of every machine, as far as this host has seen it."""
        found = {}
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                with contextlib.suppress(OSError, ValueError):
                    found[decode_machine(path.name)] = int(path.read_text())
        return found

    def notice_point(self, machine: str, sequence: int, manifest: str, name: str) -> None:
        """Raises Forged when a point's manifest, of which this is the BLAKE3, was another one: it is written once, and
        only somebody with the keys of its machine can sign another. Empty: a void record is there."""
        path = self._manifests / encode_machine(machine)
        with self._lock:
            known = self._known(machine).get(sequence)
        if known is None:
            if manifest:
                self.note_point(machine, sequence, manifest)
            return
        if known != manifest:
            raise Forged(
                f"{machine}@{sequence} in {name} is not the point that it was when this host last looked: it was "
                "overwritten",
                remedy="the credentials of a host that exports it may be stolen. Where the bucket keeps versions "
                f"`failback repair` puts the first one back; `failback forget {machine}@{sequence} --missing --reason "
                f"…` gives the point up; if it was replaced on purpose, take its line out of {path}",
            )

    def note_point(self, machine: str, sequence: int, manifest: str) -> None:
        """From now on this is the one that counts: it was committed or put back here."""
        path = self._manifests / encode_machine(machine)
        with self._lock:
            known = self._known(machine)
            if known.get(sequence) != manifest:
                known[sequence] = manifest
                with contextlib.suppress(OSError):
                    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    with path.open("a") as file:
                        file.write(f"{sequence} {manifest}\n")

    def _known(self, machine: str) -> dict[int, str]:
        if machine not in self._hashes:
            self._hashes[machine] = _read_hashes(self._manifests / encode_machine(machine))
        return self._hashes[machine]


def _read_hashes(path: Path) -> dict[int, str]:
    """What was noted last of each; a line that a crash cut short is passed over."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            sequence, _space, manifest = line.partition(" ")
            if sequence.isdigit() and len(manifest) == 64:
                found[int(sequence)] = manifest
    return found


def _write(path: Path, text: str) -> None:
    # A host that can't remember works all the same.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_text(text)
        part.replace(path)
