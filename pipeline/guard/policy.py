"""A role's rights as a policy document that AWS IAM and MinIO take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from manifests.names import encode_machine
from pipeline.errors import UsageError
from pipeline.guard.rights import LISTING, RIGHTS, WHOLE_BUCKET, Role
from pipeline.store.address import S3Address

Dialect = Literal["aws", "minio"]

AWS_LONGEST = 6144
"""Characters without white space that AWS takes for one managed policy (IAM and STS quotas)."""


def policy(
    role: Role, address: S3Address, *, machines: Sequence[str] = (), versions: bool = False, dialect: Dialect = "aws"
) -> dict[str, Any]:
    """One statement an action. `machines` narrows what an exporter or importer writes; `versions` adds what is of use
    in a versioned bucket only. Raises UsageError for a name no machine can have, or machines a role does not have."""
    own = [encode_machine(machine) for machine in machines] or ["*"]
    if machines and not any("{own}" in right.place for right in RIGHTS[role]):
        raise UsageError(f"the rights of a role {role} are for all machines", remedy="leave --machine away")
    places: dict[str, list[str]] = {}
    for right in RIGHTS[role]:
        if right.versions and not versions:
            continue
        at = places.setdefault(right.action, [])
        for place in (right.place.replace("{own}", machine) for machine in own):
            if place not in at:
                at.append(place)
    bucket = f"arn:{_partition(address, dialect)}:s3:::{address.bucket}"
    statements = [_statement(action, at, bucket, address.prefix) for action, at in places.items()]
    return {"Version": "2012-10-17", "Statement": statements}


def _statement(action: str, places: list[str], bucket: str, prefix: str) -> dict[str, Any]:
    statement: dict[str, Any] = {"Sid": action.removeprefix("s3:"), "Effect": "Allow", "Action": [action]}
    if action in WHOLE_BUCKET:
        return {**statement, "Resource": [bucket]}
    keys = [prefix + place for place in places]
    if action in LISTING:
        return {**statement, "Resource": [bucket], "Condition": {"StringLike": {"s3:prefix": keys}}}
    return {**statement, "Resource": [f"{bucket}/{key}" for key in keys]}


def _partition(address: S3Address, dialect: Dialect) -> str:
    if dialect == "aws" and address.region.startswith("cn-"):
        return "aws-cn"
    if dialect == "aws" and address.region.startswith("us-gov-"):
        return "aws-us-gov"
    return "aws"
