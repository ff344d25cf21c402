"""What a bucket is set to: versioning, object lock, life-cycle rules. Through boto3: obstore has no verbs for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.store.address import S3Address


@dataclass(frozen=True, slots=True)
class Bucket:
    """Settings of a bucket; a note for each that could not be read."""

    versioning: bool = False
    object_lock: bool = False
    notes: tuple[str, ...] = ()


def client_of(location: S3Address, region: str = "", *, connections: int = 10) -> Any:
    """A boto3 client for what obstore has no verbs for. It retries on its own: no layer of ours is above it."""
    import boto3
    from botocore.config import Config

    return boto3.Session(profile_name=location.profile or None).client(
        "s3",
        region_name=region or location.region or None,
        endpoint_url=location.endpoint or None,
        verify=location.ca or None,
        config=Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"total_max_attempts": 4, "mode": "standard"},
            max_pool_connections=connections,
            s3={"addressing_style": "virtual" if location.path_style is False else "auto"},
        ),
    )


def inspect_bucket(location: S3Address, region: str) -> Bucket:
    """Ask for versioning and object lock. Never raises for a server that refuses or does not know the question."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = client_of(location, region)
    notes: list[str] = []
    versioning = object_lock = False
    try:
        answer = client.get_bucket_versioning(Bucket=location.bucket)
        versioning = answer.get("Status") == "Enabled"
    except (BotoCoreError, ClientError) as error:
        notes.append(f"whether it keeps versions is not known: s3:GetBucketVersioning on the bucket: {short(error)}")
    try:
        answer = client.get_object_lock_configuration(Bucket=location.bucket)
        object_lock = answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "ObjectLockConfigurationNotFoundError":
            notes.append(_unknown_lock(error))
    except BotoCoreError as error:
        notes.append(_unknown_lock(error))
    return Bucket(versioning, object_lock, tuple(notes))


def _unknown_lock(error: Exception) -> str:
    return (
        f"whether it can lock objects is not known: s3:GetBucketObjectLockConfiguration on the bucket: {short(error)}"
    )


def refuses_wrong_checksum(location: S3Address, region: str, key: str) -> bool:
    """Whether the server refuses to store `key` (prefix included) with a checksum that its bytes do not have."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = client_of(location, region)
    try:
        client.put_object(Bucket=location.bucket, Key=key, Body=b"failback", ChecksumCRC64NVME="AAAAAAAAAAA=")
        client.delete_object(Bucket=location.bucket, Key=key)
    except ClientError as error:
        return bool(error.response["ResponseMetadata"]["HTTPStatusCode"] == 400)
    except BotoCoreError:
        return False
    return False


def short(error: Exception) -> str:
    """The first line of what boto3 says."""
    return str(error).splitlines()[0][:200]
