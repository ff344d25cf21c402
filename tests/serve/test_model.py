"""Whatever a guest does, and however often its server or its machine dies, its disk behaves as a disk."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from transfer.support import CHUNK, Workbench

from pipeline.serve.cache import ChunkCache
from pipeline.serve.chunks import Chunks
from pipeline.serve.disk import ServedDisk
from pipeline.serve.fill import Fill
from pipeline.serve.local import LocalStage, open_local
from pipeline.serve.lock import StateLock
from pipeline.serve.overlay import BLOCK, OverlayHead, open_overlay
from pipeline.serve.traffic import Traffic
from serve.tools import SIZE, content, exported

BLOCKS = -(-SIZE // BLOCK)
places = st.integers(0, SIZE - 1)
lengths = st.sampled_from([1, 512, 4096, 5000, 65536, 70000, 300_000])


class Guest(RuleBasedStateMachine):
    """`sure` is what a flush has made durable; `maybe` holds for each block what was written since."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name)
        self.bench = exported(Workbench(root))
        self.state, self.target = root / "guest", self.bench.restored()
        self.model = bytearray(content())
        self.maybe: dict[int, list[bytes]] = {}
        self.draw = random.Random(5)

    @initialize(filled=st.booleans())
    def start(self, filled: bool) -> None:
        self.local: LocalStage | None = None
        self.with_stage = filled
        self.open()

    def open(self) -> None:
        """As `Instant` does, but so that it can be killed."""
        bench, point, disk = self.bench, self.bench.point(), self.bench.disk()
        self.lock = StateLock(self.state)
        self.overlay = open_overlay(self.state, OverlayHead.of(bench.repository.document.id, point.manifest, disk))
        self.local = open_local(bench.repository.document.id, point, disk, self.target) if self.with_stage else None
        traffic = Traffic()
        self.chunks = Chunks(bench.repository, disk, cache=ChunkCache(8 * CHUNK), traffic=traffic, local=self.local)
        self.fill = Fill(bench.repository, self.chunks, self.local, traffic, parallel=2) if self.local else None
        self.started = False
        self.disk = ServedDisk(self.chunks, self.overlay)

    def die(self) -> None:
        """No flush, nothing noted."""
        if self.fill is not None and self.fill._thread.ident is not None:
            self.fill._stop.set()
            self.fill._thread.join()
        self.chunks.close()
        if self.local is not None:
            self.local.close()
        self.overlay.close()
        self.lock.release()

    def blocks(self, data: bytes | bytearray) -> list[bytes]:
        return [bytes(data[at : at + BLOCK]) for at in range(0, SIZE, BLOCK)]

    def changed(self, offset: int, data: bytes) -> None:
        first, end = offset // BLOCK, -(-(offset + len(data)) // BLOCK)
        for number in range(first, end):
            self.maybe.setdefault(number, [bytes(self.model[number * BLOCK : (number + 1) * BLOCK])])
        self.model[offset : offset + len(data)] = data
        for number in range(first, end):
            self.maybe[number].append(bytes(self.model[number * BLOCK : (number + 1) * BLOCK]))

    @rule(offset=places, length=lengths, seed=st.integers(0, 1000))
    def write(self, offset: int, length: int, seed: int) -> None:
        data = random.Random(seed).randbytes(min(length, SIZE - offset))
        self.disk.write(offset, data)
        self.changed(offset, data)

    @rule(offset=places, length=lengths)
    def zero(self, offset: int, length: int) -> None:
        length = min(length, SIZE - offset)
        self.disk.zero(offset, length)
        self.changed(offset, bytes(length))

    @rule(offset=places, length=lengths)
    def read(self, offset: int, length: int) -> None:
        buffer = bytearray(min(length, SIZE - offset))
        if not self.disk.try_read(offset, memoryview(buffer)):
            self.disk.read_into(offset, memoryview(buffer))
        assert buffer == self.model[offset : offset + len(buffer)]

    @rule()
    def zeros_are_zeros(self) -> None:
        at = 0
        for extent in self.disk.extents(0, SIZE):
            assert extent.offset == at
            at += extent.length
            if extent.zero:
                assert not any(self.model[extent.offset : at])
        assert at == SIZE

    @rule()
    def flush(self) -> None:
        self.disk.flush()
        self.maybe.clear()
        self.flushed = (self.state / "overlay" / "data").read_bytes()

    @precondition(lambda self: self.with_stage and not self.started)
    @rule()
    def fill_goes_on(self) -> None:
        assert self.fill is not None
        self.fill.start()
        self.started = True

    @precondition(lambda self: self.with_stage and self.started)
    @rule()
    def filled(self) -> None:
        assert self.fill is not None
        assert self.fill.finished.wait(30)
        assert self.fill.phase == "filled"
        assert self.target.read_bytes() == content()

    @rule()
    def killed(self) -> None:
        self.die()
        self.open()

    @rule()
    def power_cut(self) -> None:
        """Of what was written since the last flush any part is lost: blocks, and their bits."""
        self.die()
        data = self.state / "overlay" / "data"
        with data.open("r+b") as file:
            before = getattr(self, "flushed", bytes(SIZE))
            for number in self.maybe:
                if self.draw.random() < 0.5:
                    file.seek(number * BLOCK)
                    file.write(before[number * BLOCK : (number + 1) * BLOCK])
        (self.state / "overlay" / "boot").write_text("another boot\n")
        self.open()
        seen = bytearray(SIZE)
        self.disk.read_into(0, memoryview(seen))
        for number, (now, then) in enumerate(zip(self.blocks(seen), self.blocks(self.model), strict=True)):
            assert now == then or now in self.maybe.get(number, ()), number
        self.model = seen
        self.maybe.clear()
        self.disk.flush()
        self.flushed = data.read_bytes()

    @invariant()
    def the_stage_holds_nothing_of_the_guest(self) -> None:
        if not getattr(self, "with_stage", False) or not self.target.exists():
            return
        # Byte by byte: the fill may be in the middle of a chunk just now.
        data, right = (np.frombuffer(part, np.uint8) for part in (self.target.read_bytes(), content()))
        assert ((data == right) | (data == 0)).all()

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            self.die()
        self.folder.cleanup()


@pytest.mark.slow
class TestGuest(Guest.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
