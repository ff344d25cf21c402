"""Life-cycle rules of a bucket that would take a repository's objects away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import StoreError
from pipeline.store.address import S3Address
from pipeline.store.bucket import client_of
from pipeline.store.s3_versions import explained

_REMEDY = "take the repository's prefix out of the rule, or remove the rule: `failback gc` is what frees space"
ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes whose objects cannot be read without being brought back first."""
_SCRATCH = "probe/"
"""What lies here may be expired."""


@dataclass(frozen=True, slots=True)
class Concern:
    """What a rule does to the repository. `loses`: points would be lost; else only what protects them."""

    text: str
    remedy: str
    loses: bool = True


def concerns(location: S3Address) -> list[Concern]:
    """Of the rules that cover objects of the repository. Raises StoreError when it may not be asked; a store that does
    not know the question has no rules."""
    from botocore.exceptions import ClientError

    client = client_of(location)
    try:
        with explained("s3:GetLifecycleConfiguration", "", f"bucket {location.bucket}"):
            try:
                rules = client.get_bucket_lifecycle_configuration(Bucket=location.bucket).get("Rules", ())
            except ClientError as error:
                answer = error.response
                status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if answer.get("Error", {}).get("Code") == "NoSuchLifecycleConfiguration" or status in (405, 501):
                    return []
                raise
    finally:
        client.close()
    return [concern for rule in rules for concern in _of_rule(rule, location.prefix)]


def looked_at(location: S3Address) -> list[Concern]:
    """As `concerns`, but not being allowed to ask is one more of them, a mild one."""
    try:
        return concerns(location)
    except StoreError as error:
        return [
            Concern(f"whether a life-cycle rule expires objects is not known: {error.message}", error.remedy, False)
        ]


def _of_rule(rule: dict[str, Any], ours: str) -> Iterator[Concern]:
    chosen = rule.get("Filter") or {}
    both = chosen.get("And") or chosen
    prefix = rule.get("Prefix") or both.get("Prefix") or ""
    if rule.get("Status") != "Enabled" or both.get("Tag") or both.get("Tags"):
        return  # our objects have no tags
    if not (ours.startswith(prefix) or prefix.startswith(ours)) or prefix.startswith(ours + _SCRATCH):
        return
    name = f"life-cycle rule {rule.get('ID') or '(no name)'} for {prefix or 'the whole bucket'}"
    expiry = rule.get("Expiration") or {}
    if "Days" in expiry or "Date" in expiry:
        when = f"after {expiry['Days']} days" if "Days" in expiry else f"on {expiry['Date']:%Y-%m-%d}"
        yield Concern(f"{name} deletes objects {when}: recovery points will be lost", _REMEDY)
    for move in rule.get("Transitions") or ():
        if move.get("StorageClass") in ARCHIVES:
            yield Concern(f"{name} moves objects to {move['StorageClass']}: they cannot be read there", _REMEDY)
    older = rule.get("NoncurrentVersionExpiration") or {}
    if "NoncurrentDays" in older:
        days = older["NoncurrentDays"]
        yield Concern(
            f"{name} deletes older versions after {days} days: what is overwritten can be brought back until then",
            "this is well if somebody notices within that time",
            loses=False,
        )
