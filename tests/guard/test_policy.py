"""What is printed is enough, and nothing of it is too much; a stolen exporter's credentials reach little."""

from __future__ import annotations

import copy
import filecmp
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from servers import s3_client

from guard.conftest import SECRET, Make, Site
from pipeline.errors import FailbackError
from pipeline.guard.policy import policy
from pipeline.guard.rights import LISTING, RIGHTS, WHOLE_BUCKET
from pipeline.store.address import S3Address


def test_an_exporter_exports_lists_and_verifies_its_machine(make_site: Make, disk: Path) -> None:
    site = make_site()
    site.good("repository", "init")
    site.become(site.user(site.policy("exporter", "--machine", "web", "--machine", "Db 1")))
    site.good("export", "web", "--disk", disk)
    with open(disk, "r+b") as file:
        file.write(b"changed")
    site.good("export", "web", "--disk", disk)
    site.good("export", "Db 1", "--disk", disk)
    site.good("list")
    site.good("list", "web")
    site.good("show", "web")
    site.good("verify", "web")
    site.good("verify", "web", "--read")
    other = site.run("export", "mail", "--disk", disk)
    assert other.code == 4
    assert "s3:" in other.err
    assert "/mail/" in other.err
    assert "failback repository policy --role" in other.err


def test_an_importer_imports_and_writes_nothing(make_site: Make, disk: Path, tmp_path: Path) -> None:
    site = make_site()
    site.good("repository", "init")
    site.good("export", "web", "--disk", disk)
    site.become(site.user(site.policy("importer")))
    site.good("list")
    site.good("verify", "web")
    site.good("import", "web", "--out", tmp_path / "out")
    assert filecmp.cmp(disk, tmp_path / "out" / "web-disk0.raw", shallow=False)
    for command in (("export", "web", "--disk", disk), ("forget", "web@1", "--reason", "x", "--force")):
        done = site.run(*command)
        assert done.code == 4
        assert "s3:" in done.err


def test_a_janitor_forgets_and_reads_no_data(make_site: Make, disk: Path, tmp_path: Path) -> None:
    site = make_site()
    site.good("repository", "init")
    site.good("export", "web", "--disk", disk)
    site.good("export", "web", "--disk", disk)
    site.become(site.user(site.policy("janitor")))
    site.good("list")
    site.good("hold", "web@2", "--reason", "needed")
    site.good("release", "web")
    site.good("forget", "web@1", "--reason", "old")
    site.good("gc")
    site.good("gc", "--apply")
    done = site.run("import", "web", "--out", tmp_path / "out")
    assert done.code == 4
    assert "s3:GetObject on packs/" in done.err


def test_an_administrator_makes_the_repository(make_site: Make, disk: Path) -> None:
    site = make_site()
    site.become(site.user(site.policy("admin")))
    site.good("repository", "init")
    site.good("repository", "info")
    site.good("export", "web", "--disk", disk)
    doctor = site.run("doctor")
    assert "not known" not in doctor.out
    assert not list(site.keys("probe/"))


def rights_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(action, key pattern below the bucket, the policy without this one right) of all that a policy grants."""
    for number, statement in enumerate(document["Statement"]):
        [action] = statement["Action"]
        narrowed = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix")
        places = narrowed if narrowed is not None else statement["Resource"]
        for place in places:
            less = copy.deepcopy(document)
            rest = [p for p in places if p != place]
            if not rest:
                del less["Statement"][number]
            elif narrowed is not None:
                less["Statement"][number]["Condition"]["StringLike"]["s3:prefix"] = rest
            else:
                less["Statement"][number]["Resource"] = rest
            yield action, place.split(":::", 1)[-1].partition("/")[2] if narrowed is None else place, less


def test_a_stolen_exporter_reaches_no_other_machine_and_deletes_nothing(make_site: Make, disk: Path) -> None:
    site = make_site()
    site.good("repository", "init")
    site.good("export", "web", "--disk", disk)
    site.good("export", "mail", "--disk", disk)
    user = site.user(site.policy("exporter", "--machine", "web"))
    thief = s3_client_of(site, user)
    slot, pack = site.keys("keys/")[0], site.keys("packs/")[0]
    for key in (
        "tombstones/web/0000000001",
        "tombstones/mail/0000000001",
        "repository.json",
        slot,
        "keys/new",
        "features/new",
        "gc/plan",
        "manifests/mail/0000000001",
        "manifests/mail/0000000002",
        "sessions/mail/x/session",
        "manifests/webs/0000000001",
        "anything",
    ):
        refuses(lambda key=key: thief.put_object(Bucket=site.bucket, Key=f"{site.prefix}/{key}", Body=b"x"))  # type: ignore[misc]
    for key in (pack, slot, "repository.json", "manifests/web/0000000001", "manifests/mail/0000000001"):
        refuses(lambda key=key: thief.delete_object(Bucket=site.bucket, Key=f"{site.prefix}/{key}"))  # type: ignore[misc]
    refuses(lambda: thief.get_object(Bucket=site.bucket, Key=f"{site.prefix}/manifests/mail/0000000001"))
    refuses(lambda: thief.list_objects_v2(Bucket=site.bucket))
    refuses(lambda: thief.put_object(Bucket=site.bucket, Key="elsewhere/x", Body=b"x"))
    refuses(lambda: thief.put_bucket_lifecycle_configuration(Bucket=site.bucket, LifecycleConfiguration={"Rules": []}))
    site.become()
    site.good("verify", "mail", "--read")
    site.good("verify", "web", "--read")


def s3_client_of(site: Site, user: str) -> Any:
    from dataclasses import replace

    return s3_client(replace(site.server, access_key=user, secret_key=SECRET))


def refuses(call: Callable[[], Any]) -> None:
    with pytest.raises(ClientError) as refused:
        call()
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403)


# The document itself. --------------------------------------------------------------------------------------------


def test_the_whole_bucket_is_named_only_where_it_cannot_be_narrowed() -> None:
    address = S3Address("bucket", "a/b/")
    for role in RIGHTS:
        for statement in policy(role, address, versions=True)["Statement"]:
            [action] = statement["Action"]
            if action in LISTING:
                assert all(p.startswith("a/b/") for p in statement["Condition"]["StringLike"]["s3:prefix"])
            elif action in WHOLE_BUCKET:
                assert role == "admin"
            else:
                assert all(r.startswith("arn:aws:s3:::bucket/a/b/") for r in statement["Resource"])


def test_no_role_but_the_administrator_may_touch_keys_and_no_exporter_deletes() -> None:
    for role, rights in RIGHTS.items():
        writes = {r.place for r in rights if r.action in ("s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion")}
        assert role == "admin" or not any(p.startswith(("keys", "repository", "features", "*")) for p in writes)
        if role in ("exporter", "importer"):
            assert not any("Delete" in right.action for right in rights)


def test_other_partitions_of_aws_have_their_own_names() -> None:
    found = policy("importer", S3Address("b", "", region="cn-north-1"))
    assert "arn:aws-cn:s3:::b" in json.dumps(found)
    assert "arn:aws:s3:::b" in json.dumps(policy("importer", S3Address("b", "", region="cn-north-1"), dialect="minio"))


def test_a_machine_for_a_role_that_is_for_all_is_refused() -> None:
    with pytest.raises(FailbackError, match="all machines"):
        policy("janitor", S3Address("b"), machines=["web"])


def test_a_conductor_deletes_nothing_but_what_its_runs_hold(make_site: Make, disk: Path) -> None:
    site = make_site()
    site.good("repository", "init")
    site.good("export", "web", "--disk", disk)
    site.good("hold", "web@1", "--reason", "needed", "--as", "tests")
    thief = s3_client_of(site, site.user(site.policy("conductor")))
    for key in (
        "leases/web/0000000001",
        "runs/shop-20261130-000000-000000/journal/0000000001",
        "plans/shop/0000000001",
        "sets/shop-20261130-000000-000000/0000",
        "holds/web/tests",
        "manifests/web/0000000001",
        site.keys("packs/")[0],
        site.keys("pages/")[0],
    ):
        refuses(lambda key=key: thief.delete_object(Bucket=site.bucket, Key=f"{site.prefix}/{key}"))  # type: ignore[misc]
    for key in ("tombstones/web/0000000001", "repository.json", "keys/new", "gc/plan"):
        refuses(lambda key=key: thief.put_object(Bucket=site.bucket, Key=f"{site.prefix}/{key}", Body=b"x"))  # type: ignore[misc]


@pytest.mark.parametrize("role", ["exporter", "importer", "controller", "approver", "janitor"])
def test_only_a_conductor_writes_ownership_sets_and_plans(make_site: Make, role: str) -> None:
    site = make_site()
    thief = s3_client_of(site, site.user(site.policy(role)))
    journal = "runs/shop-20261130-000000-000000/journal/0000000001"
    for key in ("leases/web/0000000001", "plans/shop/0000000002", "sets/shop-20261130-000000-000000/0000", journal):
        if (role, key) == ("approver", journal):
            continue
        refuses(lambda key=key: thief.put_object(Bucket=site.bucket, Key=f"{site.prefix}/{key}", Body=b"x"))  # type: ignore[misc]
