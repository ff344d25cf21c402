"""An independent reader, written from FORMAT.md alone (`independent/`, in Go), restores what failback exported."""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rings import known_ring, ring_json
from servers import tool
from transfer.support import CHUNK, MIB, Workbench, make_disk, noise, poke, text

from manifests.certificate import Role, Writer
from manifests.envelope import place_checksum
from manifests.errors import Forged
from manifests.manifest import decode_manifest
from manifests.names import encode_machine
from manifests.sealing import HEADER_SIZE, ObjectKey, Sealing
from pipeline.repository import Repository
from pipeline.store.directory import DirectoryStore

from . import make_sealed as sealed

MACHINE = "Web ü"


@pytest.fixture(scope="session")
def reader() -> str:
    return tool("independent")


@pytest.fixture(params=["plain", "encrypted"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Workbench:
    bench = Workbench(tmp_path, DirectoryStore(tmp_path / "repository", create=True), encrypted=False)
    if request.param == "encrypted":
        with_ring(bench, 1)
    return bench


def with_ring(bench: Workbench, generations: int) -> None:
    document = bench.repository.document
    ring = known_ring(document.id_bytes, generations=generations)
    bench.repository = Repository(bench.store, document, Sealing(document.id_bytes, ring))


def read(reader: str, folder: Path, sealing: Sealing, sequence: int, out: Path, *, machine: str = MACHINE) -> Any:
    """What the reader reports of a restore to `out`; AssertionError with what it says when it refuses."""
    ring = out.with_name("ring.json")
    ring.write_text(ring_json(sealing))
    command = [reader, str(ring), str(folder), encode_machine(machine), str(sequence), "0", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_restores_every_point_bit_for_bit(bench: Workbench, reader: str, tmp_path: Path) -> None:
    """Stored and compressed chunks, holes, a last chunk that is cut, tiers over pages, and two generations of keys."""
    size = 257 * MIB + 512
    source = make_disk(
        tmp_path / "source",
        size,
        {0: noise(3 * MIB, 1), 8 * MIB: text(12 * MIB, 2), 256 * MIB: noise(CHUNK, 3), size - 512: noise(512, 4)},
    )
    out = tmp_path / "disk"
    for sequence, tiers in (1, 0), (2, 1), (3, 0 if bench.repository.sealing.encrypted else 1):
        bench.export(source, machine=MACHINE)
        report = read(reader, tmp_path / "repository", bench.repository.sealing, sequence, out)
        assert filecmp.cmp(out, source, shallow=False)
        disk = bench.disk(sequence, machine=MACHINE)
        assert report["digest"] == disk.digest
        assert report["tiers"] == len(disk.index.tiers) == tiers
        assert report["chunks"] * CHUNK == disk.data_bytes
        poke(source, 5 * CHUNK * sequence, noise(3 * CHUNK, f"more {sequence}"))
        poke(source, 9 * MIB, bytes(CHUNK))
        if bench.repository.sealing.encrypted and sequence == 2:
            with_ring(bench, 2)  # nothing is shared between generations: the next index is all pages


# -- the golden repository ---------------------------------------------------------------------------------------------


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(sealed.SEALED, tmp_path / "golden"))


def test_both_readers_give_the_plain_bytes_of_the_golden_repository(golden: Path, reader: str, tmp_path: Path) -> None:
    report = read(reader, golden, sealed.SEALING, 7, tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes() == sealed.PLAIN
    assert report == {"digest": report["digest"], "chunks": 4, "packs": 2, "tiers": 1}
    bench = Workbench(tmp_path)
    store = DirectoryStore(golden)
    bench.repository = Repository(store, Repository.open(store).document, sealed.SEALING)
    bench.restore(7, machine=MACHINE)
    assert bench.restored(machine=MACHINE).read_bytes() == sealed.PLAIN
    assert bench.disk(7, machine=MACHINE).digest == report["digest"]


@pytest.mark.parametrize("key", sorted(p.relative_to(sealed.SEALED).as_posix() for p in sealed.SEALED.rglob("*/*/*")))
def test_sealing_again_what_a_golden_object_holds_gives_its_very_bytes(key: str) -> None:
    """Salt, key, nonce, associated data, signature and checksum: nothing in them depends on the compressor."""
    path = sealed.SEALED / key
    if path.is_dir():
        return
    data = path.read_bytes()
    head = data[HEADER_SIZE : HEADER_SIZE + 16]
    if key.startswith("packs/"):
        opened = sealed.SEALING.data_key(data)
        assert opened is not None
        assert sealed.open_and_seal_pack(data, opened) == data
        return
    opened = sealed.SEALING.index_key(data)
    assert isinstance(opened, ObjectKey)
    signed = key.startswith("manifests/")
    end = len(data) - (32 + sealed.SEALING.signed_size if signed else 0)
    place = key if signed else ""
    plain = opened.open(2**32 - 1, data[HEADER_SIZE + 16 : end], head=head, place=place, name=key)
    assert opened.seal(2**32 - 1, plain, head=head, place=place) == data[HEADER_SIZE + 16 : end]
    if signed:
        assert sealed.sign_again(data, key) == data


# -- the independent reader is no rubber stamp -------------------------------------------------------------------------


def damaged(data: bytes, key: str, at: int) -> bytes:
    """A bit flipped; with the checksum that anyone can make anew."""
    wrong = bytearray(data)
    wrong[at] ^= 1
    if key.startswith("manifests/") and at < len(data) - 32:
        wrong[-32:] = place_checksum(bytes(wrong[:-32]), key)
    return bytes(wrong)


def test_it_refuses_a_flipped_bit_in_any_object(golden: Path, reader: str, tmp_path: Path) -> None:
    for path in sorted(p for p in golden.rglob("*") if p.is_file() and p.name != "repository.json"):
        key, data = path.relative_to(golden).as_posix(), path.read_bytes()
        for at in (0, 42, 45, 64, 100, 130, len(data) // 2, len(data) - 40, len(data) - 1):
            path.write_bytes(damaged(data, key, at))
            with pytest.raises(AssertionError, match=r"\w"):
                read(reader, golden, sealed.SEALING, 7, tmp_path / "disk")
        path.write_bytes(data)
    read(reader, golden, sealed.SEALING, 7, tmp_path / "disk")


@pytest.mark.parametrize(
    ("roles", "machine", "said"),
    [(Role.EXPORT, "", ""), (Role.EXPORT, encode_machine(MACHINE), ""), (Role.EXPORT, "db", "may not"),
     (Role.COLLECT, "", "may not")],
)  # fmt: skip
def test_both_readers_agree_on_who_may_write_a_point(
    golden: Path, reader: str, tmp_path: Path, roles: Role, machine: str, said: str
) -> None:
    ring = sealed.SEALING.ring
    assert ring is not None
    assert ring.root_private is not None
    writer = Writer.new(ring.root_private, sealed.SEALING.repository, roles, machine)
    path = golden / sealed.MANIFEST
    data = sealed.sign_again(path.read_bytes(), sealed.MANIFEST, replace(ring, writer=writer))
    path.write_bytes(data)
    if said:
        with pytest.raises(Forged, match=said):
            decode_manifest(data, sealing=sealed.SEALING, key=sealed.MANIFEST)
        with pytest.raises(AssertionError, match=said):
            read(reader, golden, sealed.SEALING, 7, tmp_path / "disk")
    else:
        assert decode_manifest(data, sealing=sealed.SEALING, key=sealed.MANIFEST) is not None
        read(reader, golden, sealed.SEALING, 7, tmp_path / "disk")
