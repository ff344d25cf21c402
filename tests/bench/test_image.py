"""The disk images of the benchmarks are what their figures take them for."""

import hashlib
import os
from pathlib import Path

import pytest

from scripts.bench.change import change
from scripts.bench.difference import CHUNK, difference
from scripts.bench.extents import BLOCK, data_extents
from scripts.bench.image import layout, make_image
from scripts.bench.sparse import change_chunks, make_dotted, make_sparse

SIZE = 64 << 20
ROOTS = [Path(os.__file__).parent / "json", Path(os.__file__).parent / "asyncio"]
"""Few enough that the corpus goes through them many times."""


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    make_image(path, SIZE, roots=ROOTS)
    return path


def test_image_is_half_full_and_sparse(image: Path) -> None:
    extents = list(data_extents(image))
    data = sum(extent.length for extent in extents)
    assert image.stat().st_size == SIZE
    assert len(extents) > 20
    assert 0.4 * SIZE < data < 0.6 * SIZE
    assert image.stat().st_blocks * 512 < 0.65 * SIZE


def test_image_is_reproducible(image: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again.raw", tmp_path / "other.raw"
    make_image(again, SIZE, roots=ROOTS)
    make_image(other, SIZE, roots=ROOTS, seed=2)
    assert digest(again) == digest(image) != digest(other)


def test_layout_does_not_depend_on_the_machine(image: Path) -> None:
    runs = list(layout(SIZE, 0.5, 1))
    assert all(run.offset % BLOCK == 0 and run.length % BLOCK == 0 for run in runs)
    assert sum(run.length for run in runs) == sum(extent.length for extent in data_extents(image))


def test_repeated_files_cannot_be_deduplicated(image: Path) -> None:
    content = image.read_bytes()
    chunks = [content[offset : offset + CHUNK] for offset in range(0, SIZE, CHUNK)]
    full = [chunk for chunk in chunks if any(chunk)]
    assert len(set(full)) > 0.99 * len(full)


def test_change_rewrites_two_percent_of_the_data_in_small_pieces(image: Path, tmp_path: Path) -> None:
    before, data = image.read_bytes(), sum(extent.length for extent in data_extents(image))
    done = change(image, tmp_path / "undo")
    after = image.read_bytes()
    differing = sum(
        before[offset : offset + BLOCK] != after[offset : offset + BLOCK] for offset in range(0, SIZE, BLOCK)
    )
    assert 0.015 * data < differing * BLOCK <= 0.02 * data
    assert done.length <= 0.02 * data
    assert all(BLOCK <= extent.length <= 64 << 10 for extent in done.extents)
    assert sum(extent.length for extent in data_extents(image)) == data, "a hole was filled"


def test_change_is_reproducible_and_can_be_reverted(image: Path, tmp_path: Path) -> None:
    before = digest(image)
    done = change(image, tmp_path / "undo", seed=7)
    changed = digest(image)
    done.revert(image)
    assert digest(image) == before
    change(image, tmp_path / "undo", seed=7)
    assert digest(image) == changed != before


def test_difference_counts_the_chunks_that_a_comparison_finds(image: Path, tmp_path: Path) -> None:
    before = image.read_bytes()
    done = change(image, tmp_path / "undo")
    after = image.read_bytes()
    expected = sum(before[at : at + CHUNK] != after[at : at + CHUNK] for at in range(0, SIZE, CHUNK))
    found = difference(image, done)
    assert found.chunks == expected
    assert 0 < found.compressed < expected * CHUNK


def test_sparse_disk_holds_little_and_changes_where_the_list_says(tmp_path: Path) -> None:
    path = tmp_path / "sparse.raw"
    wanted = 16 << 20
    data = make_sparse(path, 1 << 40, wanted, roots=ROOTS)
    assert path.stat().st_size == 1 << 40
    assert 0.3 * wanted < data < 2 * wanted
    extents = change_chunks(path, 50)
    assert len({extent.offset // CHUNK for extent in extents}) == 50
    assert path.stat().st_blocks * 512 < data + 60 * CHUNK


def test_dotted_disk_has_data_of_its_own_in_every_chunk(tmp_path: Path) -> None:
    path = tmp_path / "dotted.raw"
    make_dotted(path, 100)
    content = path.read_bytes()
    chunks = {content[offset : offset + CHUNK] for offset in range(0, len(content), CHUNK)}
    assert len(chunks) == 100
    assert bytes(CHUNK) not in chunks
