"""A bucket whose rules take objects away is told, with the remedy; what may not be asked is no failure."""

from __future__ import annotations

from typing import Any

import pytest

from guard.conftest import Make, Site
from pipeline.guard.lifecycle import concerns
from pipeline.store.address import S3Address, parse_address


def rule(prefix: str, **actions: Any) -> dict[str, Any]:
    return {"ID": "clean-up", "Status": "Enabled", "Filter": {"Prefix": prefix}, **actions}


def set_rules(site: Site, *rules: dict[str, Any]) -> None:
    site.s3.put_bucket_lifecycle_configuration(Bucket=site.bucket, LifecycleConfiguration={"Rules": list(rules)})


def found(site: Site) -> list[tuple[str, bool]]:
    address = parse_address(site.address)
    assert isinstance(address, S3Address)
    return [(concern.text, concern.loses) for concern in concerns(address)]


@pytest.mark.parametrize("prefix", ["", "site/", "site/repository/", "site/repository/packs/"])
def test_a_rule_that_expires_our_objects_is_told(make_site: Make, prefix: str) -> None:
    site = make_site()
    set_rules(site, rule(prefix, Expiration={"Days": 30}))
    done = site.good("repository", "init")
    assert "clean-up" in done.err
    assert "after 30 days" in done.err
    assert "failback gc" in done.err
    assert "after 30 days" in site.good("repository", "info").err
    doctor = site.run("doctor", "--json")
    assert doctor.code == 11
    assert "recovery points will be lost" in doctor.out


def test_rules_for_others_are_none_of_ours(make_site: Make) -> None:
    site = make_site()
    tagged = rule("", Expiration={"Days": 1})
    tagged["Filter"] = {"And": {"Prefix": "", "Tags": [{"Key": "scratch", "Value": "yes"}]}}
    set_rules(
        site,
        rule("site/other/", Expiration={"Days": 1}),
        {**rule("", Expiration={"Days": 1}), "ID": "off", "Status": "Disabled"},
        {**tagged, "ID": "tagged"},
        {**rule("site/repository/probe/", Expiration={"Days": 1}), "ID": "scratch"},
    )
    assert found(site) == []
    assert "life-cycle" not in site.good("repository", "init").err


def test_a_rule_for_older_versions_is_no_loss(make_site: Make) -> None:
    site = make_site(lock=True)
    set_rules(site, rule("", NoncurrentVersionExpiration={"NoncurrentDays": 14}))
    [(text, loses)] = found(site)
    assert "after 14 days" in text
    assert not loses


def test_no_right_to_ask_is_a_hint(make_site: Make) -> None:
    site = make_site()
    site.good("repository", "init")
    site.become(site.user(site.policy("exporter")))
    assert "s3:GetLifecycleConfiguration" in site.good("repository", "info").out
    doctor = site.run("doctor")
    assert "s3:GetLifecycleConfiguration" in doctor.out
    assert doctor.code == 0


def test_no_rules_at_all(make_site: Make) -> None:
    site = make_site()
    assert found(site) == []
    site.good("repository", "init")
    assert "none takes objects" in site.good("doctor").out
