"""Index entries that wait on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from manifests.entry import ENTRY, Positions, Rows
from manifests.page import SEGMENT_ENTRIES
from pipeline.transfer.index_reader import Block


class Spool:
    """Changed entries on disk, in order, so that their number costs no memory."""

    _RECORD = np.dtype([("position", "<u8"), ("row", ENTRY)])

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        path.unlink()
        self.count = 0

    def write(self, positions: Positions, rows: Rows) -> None:
        records = np.empty(len(positions), self._RECORD)
        records["position"], records["row"] = positions, rows
        self._file.write(records.tobytes())
        self.count += len(positions)

    def blocks(self) -> Iterator[Block]:
        self._file.flush()
        at = 0
        while True:
            self._file.seek(at)
            data = self._file.read(SEGMENT_ENTRIES * self._RECORD.itemsize)
            if not data:
                break
            at += len(data)
            records = np.frombuffer(data, self._RECORD)
            yield records["position"].copy(), records["row"].copy()
        self._file.seek(0, 2)
