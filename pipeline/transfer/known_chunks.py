"""Chunks that are stored already, looked at by position: those of earlier attempts, and of points that are bases."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from manifests.entry import PackTable
from manifests.manifest import Disk
from pipeline.errors import CorruptObject, KeyRefused, NotFound
from pipeline.repository import Repository
from pipeline.transfer.damaged_packs import DamagedPacks
from pipeline.transfer.index_copy import fill
from pipeline.transfer.index_file import IndexFile
from pipeline.transfer.index_reader import IndexReader
from pipeline.transfer.pack_lists import packs_of
from pipeline.transfer.scan import TRUSTED
from pipeline.transfer.session import Attempt, read_journal


class KnownChunks:
    """Opened in `work`, for a disk of `positions` chunks; `packs` numbers the packs of all entries."""

    def __init__(
        self, repository: Repository, work: Path, number: int, positions: int, packs: PackTable, damaged: DamagedPacks
    ) -> None:
        self.journaled: IndexFile | None = None
        """What earlier attempts at this sequence have stored."""
        self.bases: list[IndexFile] = []
        self.stored: dict[int, int] = {}
        """Stored lengths of all packs that the above refer to, by number."""
        self.journaled_bytes = 0
        """Stored bytes of the packs in journals."""
        self._repository = repository
        self._work = work
        self._number = number
        self._positions = positions
        self._packs = packs
        self._damaged = damaged

    def add_attempts(self, attempts: Iterable[Attempt], *, chunk_size: int, identity: str | None) -> None:
        """Take what attempts journaled of this disk. With the `identity` it had then it need not even be read."""
        for attempt in attempts:
            if attempt.document.get("generation", 0) != self._repository.sealing.generation:
                continue  # sealed with keys that are not to be used any more
            disk = next((d for d in attempt.document["disks"] if d["number"] == self._number), None)
            if disk is None or not attempt.journals or disk.get("chunk_size") != chunk_size:
                continue  # positions of other chunks mean other bytes
            same = disk["identity"] is not None and disk["identity"] == identity
            for key in attempt.journals:
                try:
                    journal = read_journal(self._repository, key, self._packs)
                except (CorruptObject, KeyRefused, NotFound):
                    continue  # what it would have spared is sent again
                positions, rows = journal.positions, journal.rows
                keep = (positions < self._positions) & ~self._damaged.holds(rows, self._packs)
                if journal.disk != self._number or not keep.any():
                    continue
                self.journaled_bytes += sum(n for pack, n in journal.stored.items() if pack not in self.stored)
                self.stored.update(journal.stored)
                if self.journaled is None:
                    folder = self._work / f"journaled{self._number}"
                    self.journaled = IndexFile.create(folder, self._positions, self._packs)
                rows["flags"] |= TRUSTED if same else 0
                self.journaled.put_rows(positions[keep], rows[keep])

    def add_base(self, disk: Disk) -> None:
        """Take the chunks of a disk of another point, or of this disk before it was resized."""
        folder = self._work / f"base{self._number}.{len(self.bases)}"
        file = IndexFile.create(folder, disk.positions, self._packs)
        self.bases.append(file)
        for block in IndexReader(self._repository, disk, self._packs).windows():
            positions, rows = block
            whole = ~self._damaged.holds(rows, self._packs)
            fill(file, (positions[whole], rows[whole]))
        listed = packs_of(self._repository, disk)
        self.stored.update((self._packs.ordinal(pack), use.stored) for pack, use in listed.items())

    def close(self) -> None:
        for file in [self.journaled, *self.bases]:
            if file is not None:
                file.close()
