"""`gc` by a janitor of the printed policy, in a bucket that keeps versions."""

from __future__ import annotations

import copy
import filecmp
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from guard.conftest import Make, Site
from pipeline.guard.rights import LISTING
from pipeline.store.s3_errors import ROLES

NOW = ("--grace", "0s")


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEAST_GRACE", "RECALL"):
        monkeypatch.setattr(f"pipeline.collect.collector.{name}", timedelta())
    monkeypatch.setattr("pipeline.collect.collector.SKEW", 0.0)


def forgotten(site: Site, disk: Path, *lock: str) -> None:
    """Two points that share nothing; the first is forgotten, longer ago than the store's clock ticks."""
    site.good("repository", "init", *lock)
    site.good("export", "web", "--disk", disk)
    site.good("export", "web", "--disk", disk, "--full")
    site.good("forget", "web@1", "--reason", "old")
    wait_for(site, lambda plan: plan["points_gone"] == ["web@1"] and len(plan["sessions_gone"]) == 2)


def wait_for(site: Site, wanted: Any) -> None:
    limit = time.monotonic() + 30
    while not wanted(plan := site.good("gc", *NOW, "--json").result["plan"]):
        assert time.monotonic() < limit, plan


def entries(site: Site, folder: str = "") -> list[dict[str, Any]]:
    """All versions and markers."""
    found = site.s3.list_object_versions(Bucket=site.bucket, Prefix=f"{site.prefix}/{folder}")
    assert not found["IsTruncated"]
    return [*found.get("Versions", []), *found.get("DeleteMarkers", [])]


def janitor(site: Site, *more: str) -> str:
    return site.user(site.policy("janitor", "--versions", *more))


def test_all_versions_of_what_is_not_needed_go(make_site: Make, disk: Path, tmp_path: Path) -> None:
    site = make_site(lock=True)
    forgotten(site, disk)
    before = entries(site, "packs/")
    site.become(janitor(site))
    done = site.good("gc", "--apply", *NOW, "--json").result
    assert done["freed"] > sum(e["Size"] for e in before) * 0.4
    site.become()
    assert len(entries(site, "packs/")) == len(before) / 2
    assert [e["Key"][-1] for e in entries(site, "manifests/")] == ["2"]
    assert entries(site, "sessions/") == []
    site.good("import", "web", "--out", tmp_path / "out")
    assert filecmp.cmp(disk, tmp_path / "out" / "web-disk0.raw", shallow=False)


def test_locked_ones_are_skipped_and_told_with_their_end(make_site: Make, disk: Path) -> None:
    site = make_site(lock=True)
    forgotten(site, disk, "--lock", "governance", "--lock-days", "3")
    before = entries(site, "packs/")
    site.become(janitor(site))
    done = site.good("gc", "--apply", *NOW, "--json").result
    erased = done["plan"]["erased"]
    assert (erased["bytes"], done["freed"]) == (0, 0)
    assert erased["locked_bytes"] >= sum(e["Size"] for e in before) / 2
    last = datetime.fromisoformat(erased["last"])
    assert timedelta(days=2) < last - datetime.now(UTC) <= timedelta(days=3)
    assert entries(site, "packs/") == before
    said = site.good("gc", "--apply", *NOW).out
    assert "are locked until" in said
    assert f"{datetime.now(UTC) + timedelta(days=3):%Y-%m}" in said


def test_without_versions_wanted_objects_are_hidden_only(make_site: Make, disk: Path) -> None:
    site = make_site(lock=True)
    forgotten(site, disk)
    before = len(entries(site, "packs/"))
    site.become(site.user(site.policy("janitor")))
    done = site.good("gc", "--apply", "--keep-versions", *NOW)
    assert "hid " in done.out
    assert "takes space as before" in done.err
    site.become()
    assert len(site.keys("packs/")) == before / 2
    assert len(entries(site, "packs/")) == before * 1.5
    wait_for(site, lambda plan: plan["hidden"]["count"] >= before / 2)
    site.become(janitor(site))
    site.good("gc", "--apply", *NOW)
    site.become()
    assert len(entries(site, "packs/")) == before / 2


def test_each_right_to_delete_versions_is_missed_by_name(make_site: Make, disk: Path) -> None:
    """MinIO takes s3:DeleteObject for it: both are taken away. In the order in which a collection deletes."""
    site = make_site(lock=True)
    forgotten(site, disk)
    for _ in range(2):
        site.good("hold", "web@2", "--reason", "needed", "--as", "tests")
    wait_for(site, lambda _plan: True)
    document = site.policy("janitor", "--versions")
    user = site.user(document)
    site.become(user)
    for folder in ("packs", "pages", "manifests", "sessions", "gc", "holds"):
        less = copy.deepcopy(document)
        for statement in less["Statement"]:
            if statement["Action"][0] in ("s3:DeleteObject", "s3:DeleteObjectVersion"):
                statement["Resource"] = [r for r in statement["Resource"] if not r.endswith(f"/{folder}/*")]
        site.change(user, less)
        done = site.run("gc", "--apply", *NOW)
        assert done.code == 4, (folder, done.out, done.err)
        assert f"s3:DeleteObjectVersion on {folder}/" in done.err
        assert ROLES in done.err
    site.change(user, document)
    site.good("gc", "--apply", *NOW)


@pytest.mark.parametrize("folder", ["packs", "pages"])
def test_each_right_to_list_versions_is_missed_by_name(make_site: Make, disk: Path, folder: str) -> None:
    """MinIO takes s3:ListBucket for it: both are taken away."""
    site = make_site(lock=True)
    forgotten(site, disk)
    document = site.policy("janitor", "--versions")
    for statement in document["Statement"]:
        if statement["Action"][0] in LISTING:
            prefixes = statement["Condition"]["StringLike"]["s3:prefix"]
            prefixes.remove(f"{site.prefix}/{folder}/*")
    site.become(site.user(document))
    done = site.run("gc", *NOW)
    assert done.code == 4
    assert f"s3:ListBucketVersions on {folder}/" in done.err


@pytest.mark.parametrize(
    ("action", "command"),
    [
        ("s3:GetObjectRetention", ("show", "web", "--locks")),
        ("s3:PutObjectRetention", ("protect", "web", "--days", "9")),
        ("s3:PutBucketObjectLockConfiguration", ("repository", "init", "--lock", "governance", "--lock-days", "1")),
        ("s3:GetBucketObjectLockConfiguration", ("protect", "web", "--days", "9")),
    ],
)
def test_each_right_to_lock_is_missed_by_name(
    make_site: Make, disk: Path, action: str, command: tuple[str, ...]
) -> None:
    site = make_site(lock=True)
    if command[0] != "repository":
        site.good("repository", "init", "--lock", "governance", "--lock-days", "1")
        site.good("export", "web", "--disk", disk)
    document = site.policy("admin", "--versions")
    document["Statement"] = [s for s in document["Statement"] if s["Action"] != [action]]
    site.become(site.user(document))
    done = site.run(*command)
    assert done.code == 4, (done.out, done.err)
    assert f"{action} on " in done.err
    assert ROLES in done.err


def test_without_the_right_to_see_locks_it_says_so(make_site: Make, disk: Path) -> None:
    site = make_site(lock=True)
    forgotten(site, disk, "--lock", "governance", "--lock-days", "3")
    document = site.policy("janitor", "--versions")
    document["Statement"] = [s for s in document["Statement"] if s["Action"] != ["s3:GetObjectRetention"]]
    site.become(site.user(document))
    done = site.run("gc", "--apply", *NOW)
    assert done.code == 4
    assert "s3:GetObjectRetention on packs/" in done.err
