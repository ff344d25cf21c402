"""An older version that fits is found; why none could be looked at is told with what was wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from pipeline.errors import AccessDenied, CorruptObject, NotFound
from pipeline.store.base import Locked, Version, Versions
from pipeline.store.layer import Layer
from pipeline.store.memory import MemoryStore
from pipeline.store.older import older

NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Kept(Versions):
    """Versions of one key, the newest first; None is a deletion."""

    def __init__(self, *contents: bytes | None, denied: bool = False, gone: bytes = b"") -> None:
        self.contents, self.denied, self.gone = contents, denied, gone

    def list_versions(self, key: str) -> list[Version]:
        if self.denied:
            raise AccessDenied(f"s3:ListBucketVersions on {key}", remedy="ask for it")
        return [Version(key, str(i), len(c or b""), NOW, i == 0, marker=c is None) for i, c in enumerate(self.contents)]

    def get_version(self, version: Version) -> bytes:
        found = self.contents[int(version.id)]
        assert found is not None
        if found == self.gone:
            raise NotFound(version.key)
        return found

    def walk(self, prefix: str, *, after: str = "") -> Iterator[Version]:
        raise AssertionError("one key is asked for")

    def delete_versions(self, versions: Iterable[Version]) -> list[Locked]:
        raise AssertionError("nothing is deleted here")


class Keeping(MemoryStore):
    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self.kept = kept

    def versions(self) -> Versions:
        return self.kept


def fitting(data: bytes) -> bytes | None:
    return data if data.startswith(b"good") else None


def wrong() -> CorruptObject:
    return CorruptObject("it is damaged", remedy="restore another point")


def test_deletions_and_what_does_not_fit_are_passed_over() -> None:
    kept = Kept(None, b"bad", None, b"good 2", b"good 1")
    assert older(Layer(Keeping(kept)), "k", fitting, wrong()) == b"good 2"
    assert older(Keeping(kept), "k", fitting, wrong(), oldest_first=True) == b"good 1"


def test_a_version_that_a_collector_took_meanwhile_is_passed_over() -> None:
    assert older(Keeping(Kept(b"good 2", b"good 1", gone=b"good 2")), "k", fitting, wrong()) == b"good 1"


def test_nothing_fits_or_nothing_is_kept() -> None:
    error = wrong()
    assert older(Keeping(Kept(b"bad", None)), "k", fitting, error) is None
    assert older(MemoryStore(), "k", fitting, error) is None
    assert str(error) == str(wrong())


def test_without_the_right_to_look_the_error_names_it() -> None:
    error = wrong()
    assert older(Keeping(Kept(denied=True)), "k", fitting, error) is None
    assert "s3:ListBucketVersions on k" in error.message
    assert error.remedy == "ask for it"
