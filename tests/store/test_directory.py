"""What only a directory has to promise: no half files, no leftovers, true errors of the file system."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import AccessDenied, StoreError, StoreFull, StoreUnavailable
from pipeline.store.directory import TEMPORARY, TEMPORARY_AGE, DirectoryStore


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store", create=True)


def failing(number: int) -> Callable[..., object]:
    def call(*args: object, **options: object) -> object:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EACCES, AccessDenied),
        (errno.EROFS, AccessDenied),
        (errno.ESTALE, StoreUnavailable),
        (errno.EIO, StoreError),
    ],
)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename"])
def test_an_error_of_the_file_system_is_named_and_leaves_nothing_behind(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[StoreError], call: str
) -> None:
    store.put("a", b"old")
    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing(number))
        with pytest.raises(expected, match=r"cannot put a in .*store: ") as caught:
            store.put("a", b"new")
    assert caught.value.remedy
    assert type(caught.value) is expected
    assert bytes(store.get("a")) == b"old"
    assert list((store.root / TEMPORARY).iterdir()) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_an_error_is_never_absence(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(os, "stat", failing(number))
    with pytest.raises(StoreError, match="cannot head a"):
        store.head("a")


def test_a_root_that_is_removed_is_an_error_and_not_absence(store: DirectoryStore) -> None:
    shutil.rmtree(store.root)
    for verb in (lambda: store.head("a"), lambda: store.get("a"), lambda: list(store.list(""))):
        with pytest.raises(StoreUnavailable, match="was removed"):
            verb()


def test_a_writer_killed_at_any_step_leaves_the_old_object_or_the_new_one(tmp_path: Path) -> None:
    """The child dies just before each of its system calls in turn."""
    steps = ("open", "write", "fsync", "rename", "link", "unlink", "close", "mkdir")
    survived = False
    for create in (False, True):
        for step in range(1, 40):
            root = tmp_path / f"{create}-{step}"
            store = DirectoryStore(root, create=True)
            if not create:
                store.put("deep/a", b"old")
            child = os.fork()
            if child == 0:
                count = 0

                def dying(real: Callable[..., object], step: int = step) -> Callable[..., object]:
                    def call(*args: object, **options: object) -> object:
                        nonlocal count
                        count += 1
                        if count == step:
                            os.kill(os.getpid(), signal.SIGKILL)
                        return real(*args, **options)

                    return call

                for name in steps:
                    setattr(os, name, dying(getattr(os, name)))
                store.put("deep/a", b"new", create=create)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            again = DirectoryStore(root)
            found = again.head("deep/a")
            content = None if found is None else bytes(again.get("deep/a"))
            assert content in ((None, b"new") if create else (b"old", b"new"))
            assert [info.key for info in again.list("")] == ([] if content is None else ["deep/a"])
            again.put("deep/a", b"next")
            assert bytes(again.get("deep/a")) == b"next"
            if not os.WIFSIGNALED(status):
                survived = True
                break
        assert survived


def test_old_leftovers_are_removed_and_young_ones_are_not(store: DirectoryStore) -> None:
    store.put("a", b"x")
    old, young = store.root / TEMPORARY / "old", store.root / TEMPORARY / "young"
    for path in (old, young):
        path.write_bytes(b"x")
    long_ago = time.time() - TEMPORARY_AGE - 1
    os.utime(old, (long_ago, long_ago))
    DirectoryStore(store.root)
    assert not old.exists()
    assert young.exists()
    assert [info.key for info in store.list("")] == ["a"]


def test_a_temporary_file_taken_from_a_sleeping_writer_is_put_again(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.rename

    def late(source: str, *args: object, **options: object) -> None:
        (store.root / source).unlink()
        real(source, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(StoreUnavailable, match="removed meanwhile"):
        store.put("a", b"x")


def test_a_folder_removed_by_somebody_is_made_again(store: DirectoryStore) -> None:
    store.put("packs/ab/1", b"x")
    store.delete_many(["packs/ab/1"])
    (store.root / "packs/ab").rmdir()
    store.put("packs/ab/2", b"x")
    shutil.rmtree(store.root / TEMPORARY)
    store.put("packs/ab/3", b"x")
    assert [info.key for info in store.list("")] == ["packs/ab/2", "packs/ab/3"]


def test_what_is_not_ours_is_not_listed(store: DirectoryStore) -> None:
    store.put("a", b"x")
    (store.root / "lost+found").mkdir()
    (store.root / ".snapshot").mkdir()
    (store.root / ".snapshot" / "a").write_bytes(b"x")
    (store.root / "with space").write_bytes(b"x")
    os.mkfifo(store.root / "pipe")
    assert [info.key for info in store.list("")] == ["a"]
    assert store.head("pipe") is None


def test_a_link_whose_answer_the_server_lost_has_succeeded(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def lost(*args: object, **options: object) -> None:
        real(*args, **options)  # type: ignore[arg-type]
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", lost)
    store.put("a", b"x", create=True)
    assert bytes(store.get("a")) == b"x"


def test_a_file_system_without_hard_links_is_refused_by_name(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EOPNOTSUPP))
    with pytest.raises(StoreError, match="no hard links.*\n.*ext4"):  # noqa: RUF043
        store.put("a", b"x", create=True)


def test_a_key_below_an_object_is_refused(store: DirectoryStore) -> None:
    store.put("a", b"x")
    store.put("b/c", b"x")
    with pytest.raises(StoreError, match="folder"):
        store.put("a/b", b"x")
    with pytest.raises(StoreError, match="folder"):
        store.put("b", b"x")
