"""What callers keep reads back as it was, or says that it cannot be read; a marker is one thing's alone."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Cancelled, CorruptObject, TargetError
from pipeline.home.control import Controller
from pipeline.home.folder import PlaceFolder, Places, Record
from pipeline.place import Build, DiskRestored, Place, Stage
from pipeline.progress import Counters
from pipeline.target import ROLES, marker_of, part_of
from pipeline.wanted import Network

MARKER = uuid.UUID("9a0dd8a5-7d4a-5f8b-a3a5-2a55b5fe8a11")
PLACE = Place(
    MARKER,
    "vm",
    "running",
    Stage(
        "vm", 3, "guard", (DiskRestored(0, "/d", "full", "new", "ab", "read", Counters(total=5)),), False, {"a": "b"}
    ),
    Build(MARKER, "rehearsal", "vm-rehearsal", (Network(name="lan", mac="52:54:00:00:00:01"),), True, {"pid": "4"}),
    True,
    {"folder": "/x"},
)


def test_a_place_reads_back_as_it_was() -> None:
    assert Place.from_json(PLACE.to_json()) == PLACE
    assert PLACE.stage is not None
    assert PLACE.build is not None
    assert Stage.from_json(PLACE.stage.to_json()) == PLACE.stage
    assert Build.from_json(PLACE.build.to_json()) == PLACE.build


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"marker": 1}',
        PLACE.to_json()[:-1],
        PLACE.to_json().replace('"running"', '"asleep"'),
        PLACE.to_json().replace('"sequence":3', '"sequence":"x"'),
        PLACE.to_json().replace('"pid":"4"', '"pid":4'),
    ],
)
def test_what_is_no_place_is_said(text: str) -> None:
    with pytest.raises(CorruptObject, match="a kept place cannot be read"):
        Place.from_json(text)


@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4)), min_size=2, unique=True))
def test_no_two_names_give_one_marker(names: list[tuple[str, str, str]]) -> None:
    assert len({marker_of(*name) for name in names}) == len(names)


def test_the_parts_of_a_place_have_markers_of_their_own_that_stay() -> None:
    parts = {part_of(MARKER, role, number) for role in ROLES for number in range(3)}
    assert len(parts) == 3 * len(ROLES)
    assert part_of(MARKER, "disk", 1) == uuid.uuid5(MARKER, "4:disk1:1")
    ours = uuid.UUID("6f8e3b52-0f0e-5c3c-9a53-6d1b0c6f9a11")
    assert marker_of("repo", "import", "vm") == uuid.uuid5(ours, "4:repo6:import2:vm5:place1:0")
    with pytest.raises(ValueError, match="no role"):
        part_of(MARKER, "disc")


def test_notes_are_there_for_the_next_process(tmp_path: Path) -> None:
    folder = Places(tmp_path).of("there", MARKER)
    assert folder.get("lease") == ""
    folder.note("lease", "17")
    folder.note("task", "4")
    folder.note("task", "")
    again = Places(tmp_path).of("there", MARKER)
    assert (again.get("lease"), again.get("task")) == ("17", "")
    (folder.folder / "notes.json").write_text('{"lease": 4')
    assert again.get("lease") == ""


def test_a_state_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "places").write_text("a file")
    folder: PlaceFolder = Places(tmp_path).of("there", MARKER)
    for action in (
        lambda: folder.note("a", "b"),
        lambda: folder.save(Record("", "", "", "")),
        folder.held("x").__enter__,
    ):
        with pytest.raises(TargetError, match="cannot use") as caught:
            action()
        assert caught.value.remedy


def test_a_cancelled_caller_still_cleans_up() -> None:
    control = Controller()
    control.check()
    control.cancel()
    with pytest.raises(Cancelled):
        control.check()
    with control.shielded():
        control.check()
    with pytest.raises(Cancelled):
        control.check()
