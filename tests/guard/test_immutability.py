"""Locks hold against all who may write and delete; what was overwritten or deleted is read from older versions."""

from __future__ import annotations

import filecmp
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from guard.conftest import Make, Site
from guard.test_policy import refuses, s3_client_of
from pipeline.guard.retention import Locks, day_after
from pipeline.store.address import parse_address


def locked_site(make_site: Make, disk: Path) -> Site:
    site = make_site(lock=True)
    site.good("repository", "init", "--lock", "governance", "--lock-days", "3")
    site.good("export", "web", "--disk", disk)
    return site


def restores(site: Site, disk: Path, out: Path, point: str) -> None:
    site.good("import", point, "--out", out)
    assert filecmp.cmp(disk, out / "web-disk0.raw", shallow=False)


def test_new_objects_get_the_lock_of_the_bucket(make_site: Make, disk: Path) -> None:
    site = locked_site(make_site, disk)
    locks = Locks(parse_address(site.address))
    for key in [*site.keys("packs/"), *site.keys("pages/"), *site.keys("manifests/"), *site.keys("keys/")]:
        found = locks.of(key)
        assert found is not None
        assert found.mode == "GOVERNANCE"
        assert timedelta(days=2) < found.until - datetime.now(UTC) <= timedelta(days=3)
    shown = site.good("show", "web", "--locks", "--json").result["lock"]
    assert shown["mode"] == "governance"


def test_a_bucket_without_object_lock_is_refused_before_anything_is_made(make_site: Make, disk: Path) -> None:
    site = make_site()
    done = site.run("repository", "init", "--lock", "compliance", "--lock-days", "1")
    assert done.code == 2
    assert "has no object lock" in done.err
    assert site.keys("") == []
    site.good("repository", "init")
    site.good("export", "web", "--disk", disk)
    done = site.run("protect", "web", "--days", "3")
    assert done.code == 2
    assert site.run("repository", "init", "--lock", "governance").code == 2


def test_protect_only_lengthens_and_goes_on(make_site: Make, disk: Path) -> None:
    site = locked_site(make_site, disk)
    first = site.good("protect", "web@1", "--days", "10", "--json").result
    assert first["extended"] > 0
    assert first["already"] == 0
    again = site.good("protect", "web@1", "--days", "10", "--json").result
    assert (again["extended"], again["already"]) == (0, first["extended"])
    shorter = site.good("protect", "web@1", "--days", "5", "--json").result
    assert shorter["extended"] == 0
    assert site.good("show", "web", "--locks", "--json").result["lock"]["until"] == day_after(10).isoformat()


def test_what_is_not_locked_yet_gets_the_mode_that_was_asked_for(make_site: Make, disk: Path) -> None:
    site = make_site(lock=True)
    site.good("repository", "init")
    site.good("export", "web", "--disk", disk)
    assert site.good("show", "web", "--locks", "--json").result["lock"] is None
    site.good("protect", "web", "--days", "1", "--lock", "compliance")
    lock = site.good("show", "web", "--locks", "--json").result["lock"]
    assert lock == {"mode": "compliance", "until": day_after(1).isoformat()}


def test_only_what_live_points_use_is_protected(make_site: Make, disk: Path) -> None:
    site = locked_site(make_site, disk)
    disk.write_bytes(disk.read_bytes()[::-1])
    site.good("export", "web", "--disk", disk)
    site.good("forget", "web@1", "--reason", "old")
    done = site.good("protect", "web", "--days", "10", "--json").result
    assert done["points"] == ["web@2"]
    locks = Locks(parse_address(site.address))
    [first, second] = [locks.of(f"manifests/web/000000000{number}") for number in (1, 2)]
    assert first is not None
    assert second is not None
    assert first.until < day_after(10) == second.until


def lock_ends(site: Site, key: str) -> list[datetime]:
    """Of all versions of an object, the newest first."""
    whole = f"{site.prefix}/{key}"
    listed = site.s3.list_object_versions(Bucket=site.bucket, Prefix=whole).get("Versions", [])
    return [
        site.s3.get_object_retention(Bucket=site.bucket, Key=whole, VersionId=entry["VersionId"])["Retention"][
            "RetainUntilDate"
        ]
        for entry in listed
    ]


@pytest.mark.parametrize("deed", ["overwrite", "delete"])
def test_a_thief_does_not_make_protect_pass_over_what_points_need(make_site: Make, disk: Path, deed: str) -> None:
    """Or the locks of what is read from older versions would run out while it looks protected."""
    site = locked_site(make_site, disk)
    disk.write_bytes(disk.read_bytes()[::-1])
    site.good("export", "web", "--disk", disk)
    keys = [*site.keys("packs/"), *site.keys("pages/"), *site.keys("manifests/web/")]
    for key in keys:
        whole = f"{site.prefix}/{key}"
        if deed == "overwrite":
            site.s3.put_object(Bucket=site.bucket, Key=whole, Body=b"garbage")
        else:
            site.s3.delete_object(Bucket=site.bucket, Key=whole)
    site.monkeypatch.setenv("FAILBACK_STATE_DIR", str(disk.parent / "a fresh host"))
    done = site.good("protect", "web", "--days", "10", "--json").result
    assert done["points"] == ["web@1", "web@2"]
    assert set(done["rewritten" if deed == "overwrite" else "hidden"]) == set(keys)
    for key in keys:
        assert min(lock_ends(site, key)) >= day_after(10), key
    shown = site.good("show", "web@1", "--locks", "--json").result["lock"]
    assert shown["until"] == day_after(10).isoformat()


def test_what_is_gone_does_not_keep_the_rest_from_being_protected(make_site: Make, disk: Path) -> None:
    site = locked_site(make_site, disk)
    [pack] = site.keys("packs/")
    whole = f"{site.prefix}/{pack}"
    for entry in site.s3.list_object_versions(Bucket=site.bucket, Prefix=whole)["Versions"]:
        site.s3.delete_object(
            Bucket=site.bucket, Key=whole, VersionId=entry["VersionId"], BypassGovernanceRetention=True
        )
    done = site.run("protect", "web", "--days", "10", "--json")
    assert done.code == 5
    assert done.result["missing"] == [pack]
    assert min(lock_ends(site, "manifests/web/0000000001")) >= day_after(10)
    assert site.run("show", "web", "--locks").code == 5
    site.good("repair", "--from-disk", f"web@1:0={disk}")
    site.good("protect", "web", "--days", "10")
    stand_ins = [*site.keys("relocations/"), *site.keys("packs/")]
    assert len(stand_ins) == 2
    for key in stand_ins:
        assert min(lock_ends(site, key)) >= day_after(10), key
    assert site.good("show", "web", "--locks", "--json").result["lock"]["until"] == day_after(10).isoformat()


def test_an_administrator_of_the_policy_can_do_all_that(make_site: Make, disk: Path) -> None:
    site = make_site(lock=True)
    site.become(site.user(site.policy("admin", "--versions")))
    done = site.good("repository", "init", "--lock", "governance", "--lock-days", "1")
    assert "is locked for 1 day (governance)" in done.out
    site.good("export", "web", "--disk", disk)
    site.good("protect", "web", "--days", "2")
    site.good("show", "web", "--locks")


@pytest.mark.parametrize("encrypted", [True, False])
@pytest.mark.parametrize("same_length", [True, False])
def test_overwritten_by_a_stolen_exporter_it_is_read_from_older_versions(
    make_site: Make, disk: Path, tmp_path: Path, encrypted: bool, same_length: bool
) -> None:
    site = make_site(lock=True)
    if not encrypted:
        site.monkeypatch.delenv("FAILBACK_KEY_FILE")
    site.good("repository", "init", "--lock", "governance", "--lock-days", "3", *(() if encrypted else NO_KEY))
    site.good("export", "web", "--disk", disk)
    thief = s3_client_of(site, site.user(site.policy("exporter", "--machine", "web")))
    for key in [*site.keys("packs/"), *site.keys("pages/"), *site.keys("manifests/web/")]:
        whole = f"{site.prefix}/{key}"
        size = site.s3.head_object(Bucket=site.bucket, Key=whole)["ContentLength"]
        thief.put_object(Bucket=site.bucket, Key=whole, Body=b"\xaa" * (size if same_length else 10))
    site.become(site.user(site.policy("importer", "--versions")))
    restores(site, disk, tmp_path / "out", "web")


NO_KEY = ("--no-encryption",)


def test_deleted_by_a_stolen_janitor_it_is_read_from_locked_versions(
    make_site: Make, disk: Path, tmp_path: Path
) -> None:
    site = locked_site(make_site, disk)
    thief = s3_client_of(site, site.user(site.policy("janitor", "--versions")))
    keys = [*site.keys("packs/"), *site.keys("pages/"), *site.keys("manifests/web/")]
    for key in keys:
        thief.delete_object(Bucket=site.bucket, Key=f"{site.prefix}/{key}")
    for entry in site.s3.list_object_versions(Bucket=site.bucket, Prefix=f"{site.prefix}/packs/")["Versions"]:
        with pytest.raises(ClientError):
            thief.delete_object(Bucket=site.bucket, Key=entry["Key"], VersionId=entry["VersionId"])
        with pytest.raises(ClientError):
            thief.delete_object(
                Bucket=site.bucket, Key=entry["Key"], VersionId=entry["VersionId"], BypassGovernanceRetention=True
            )
    assert site.keys("packs/") == []
    site.become(site.user(site.policy("importer", "--versions")))
    restores(site, disk, tmp_path / "out", "web@1")


@pytest.mark.parametrize("versions", [(), ("--versions",)])
def test_on_minio_only_a_lock_keeps_a_version_from_a_janitor(
    make_site: Make, disk: Path, versions: tuple[str, ...]
) -> None:
    """MinIO asks for no right to delete versions besides the right to delete: SECURITY.md says so."""
    site = make_site(lock=True)
    site.good("repository", "init")
    site.good("export", "web", "--disk", disk)
    janitor = s3_client_of(site, site.user(site.policy("janitor", *versions)))
    entries = site.s3.list_object_versions(Bucket=site.bucket, Prefix=f"{site.prefix}/packs/")["Versions"]
    which = {"Bucket": site.bucket, "Key": entries[0]["Key"], "VersionId": entries[0]["VersionId"]}
    site.good("protect", "web", "--days", "1")
    refuses(lambda: janitor.delete_object(**which))
    site.good("verify", "web", "--read")
    site.good("export", "web", "--disk", disk, "--full")
    [free, *_] = [
        entry
        for entry in site.s3.list_object_versions(Bucket=site.bucket, Prefix=f"{site.prefix}/packs/")["Versions"]
        if entry["Key"] not in {e["Key"] for e in entries}
    ]
    janitor.delete_object(Bucket=site.bucket, Key=free["Key"], VersionId=free["VersionId"])


def test_a_void_record_over_a_point_does_not_hide_it(make_site: Make, disk: Path, tmp_path: Path) -> None:
    from manifests.envelope import Kind
    from manifests.manifest import encode_record
    from pipeline.repository import Repository
    from pipeline.store.open import open_store

    site = make_site(lock=True)
    site.monkeypatch.delenv("FAILBACK_KEY_FILE")
    site.good("repository", "init", "--no-encryption")
    site.good("export", "web", "--disk", disk)
    repository = Repository.open(open_store(site.address))
    key = "manifests/web/0000000001"
    repository.store.put(key, encode_record(Kind.VOID, {"reason": "x"}, sealing=repository.sealing, key=key))
    restores(site, disk, tmp_path / "out", "web@1")


def test_in_a_bucket_without_versions_damage_stays_damage(make_site: Make, disk: Path, tmp_path: Path) -> None:
    site = make_site()
    site.good("repository", "init")
    site.good("export", "web", "--disk", disk)
    [pack, *_] = site.keys("packs/")
    site.s3.put_object(Bucket=site.bucket, Key=f"{site.prefix}/{pack}", Body=b"rubbish")
    assert site.run("import", "web", "--out", tmp_path / "out").code == 5


def test_locks_of_a_bucket_that_has_none_are_not_shown_as_an_error_of_the_store(make_site: Make, disk: Path) -> None:
    site = make_site()
    site.good("repository", "init")
    site.good("export", "web", "--disk", disk)
    done = site.run("show", "web", "--locks")
    assert done.code == 2
    assert f"bucket {site.bucket} has no object lock" in done.err
