"""Every name has one key, every key one name, and no two names meet on a store that folds what they differ in."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from manifests.errors import CorruptObject, UsageError
from manifests.names import (
    MAX_SEQUENCE,
    PointName,
    decode_machine,
    encode_machine,
    journal_key,
    manifest_key,
    pack_key,
    page_key,
    parse_point,
    run_name,
    sequence_part,
    session_prefix,
    tombstone_key,
)

from . import reader

names = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/@\\"), max_size=20)


def encoded(name: str) -> str:
    try:
        return encode_machine(name)
    except UsageError:
        assume(False)
        raise


@given(names)
@settings(deadline=None, max_examples=250)
@example("Web 1")
@example("..web..")
@example("東京-web")
@example("a%41~b")
def test_a_name_comes_back_from_its_key_in_nfc(name: str) -> None:
    part = encoded(name)
    assert decode_machine(part) == reader.machine_name(part) == unicodedata.normalize("NFC", name)
    assert re.fullmatch(r"(?:[a-z0-9_-]|\.|~[a-z]|%[0-9A-F]{2})+", part)
    assert not part.startswith(".")
    assert not part.endswith(".")


@given(names, names)
@settings(deadline=None, max_examples=250)
@example("Web", "web")
@example("web", "web.")
@example("Web", "~web")
@example("é", "É")
@example("K", "K")  # The Kelvin sign is a K in NFC.
@example("ſ", "s")
@example("%C3", "Ã")
def test_names_that_differ_have_keys_that_differ_in_more_than_case_and_dots(left: str, right: str) -> None:
    a, b = encoded(left), encoded(right)
    same = unicodedata.normalize("NFC", left) == unicodedata.normalize("NFC", right)
    assert (a.casefold().rstrip(". ") == b.casefold().rstrip(". ")) == same


@given(st.text(st.sampled_from("abWz09-_.!~%C3cé/ "), max_size=8) | st.text(max_size=8))
@settings(deadline=None, max_examples=250)
def test_a_part_of_a_key_is_a_name_or_corrupt_never_a_second_spelling(part: str) -> None:
    try:
        name = decode_machine(part)
    except CorruptObject:
        return
    assert encode_machine(name) == part


@given(st.text(max_size=12))
@settings(deadline=None, max_examples=250)
def test_any_text_is_a_name_or_a_usage_error(text: str) -> None:
    try:
        part = encode_machine(text)
    except UsageError:
        return
    assert decode_machine(part) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "\u3000",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a@1",
        "a\nb",
        "a\0",
        "a\x7f",
        "a\u2028b",
        "\ud800",
        "a" * 241,
        "ü" * 41,
    ],
)
def test_a_name_that_cannot_be_a_key_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        encode_machine(name)


@pytest.mark.parametrize("name", ["a" * 240, "A" * 80 + "-1", "ü" * 40, "東" * 26])
def test_long_names_fit_into_a_file_name(name: str) -> None:
    assert len(encode_machine(name)) <= 240


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("web", PointName("web", None)),
        ("web@latest", PointName("web", None)),
        ("web@1", PointName("web", 1)),
        ("web@0000000017", PointName("web", 17)),
        ("web@9999999999", PointName("web", MAX_SEQUENCE)),
        ("Web 1@2", PointName("Web 1", 2)),
    ],
)
def test_a_point_is_read_as_written(text: str, point: PointName) -> None:
    assert parse_point(text) == point


@pytest.mark.parametrize(
    "text",
    ["", "@", "@1", "web@", "web@0", "web@-1", "web@+1", "web@1.0", "web@ 1", "web@1_0", "web@²", "web@١",
     "web@10000000000", "web@Latest", "web@1@2", "a/b@1", "web@" + "9" * 5000],
)  # fmt: skip
def test_what_is_no_point_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_point(text)


@given(st.integers(1, MAX_SEQUENCE), st.integers(1, MAX_SEQUENCE), st.integers(0, 9999), st.integers(0, 9999))
def test_keys_sort_as_their_numbers_do(a: int, b: int, c: int, d: int) -> None:
    assert (manifest_key("m", a) < manifest_key("m", b)) == (a < b)
    assert (run_name(a, c) < run_name(b, d)) == ((a, c) < (b, d))
    assert (journal_key("m", "r", c) < journal_key("m", "r", d)) == (c < d)


@pytest.mark.parametrize("sequence", [0, -1, MAX_SEQUENCE + 1])
def test_a_sequence_that_has_no_ten_digits_gets_no_key(sequence: int) -> None:
    with pytest.raises(ValueError, match="no key"):
        sequence_part(sequence)


def test_keys_are_those_of_the_format() -> None:
    name = bytes(range(32))
    assert pack_key(name) == f"packs/00/{name.hex()}"
    assert page_key(name) == f"pages/00/{name.hex()}"
    assert manifest_key("Web 1", 7) == "manifests/~web%201/0000000007"
    assert tombstone_key("web", 7) == "tombstones/web/0000000007"
    assert session_prefix("web", run_name(7, 1)) == "sessions/web/0000000007-0001/"
    assert journal_key("web", run_name(7, 1), 3) == "sessions/web/0000000007-0001/journal/00000003"
