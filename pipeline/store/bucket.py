"""What a bucket is set to: versioning and object lock, asked through boto3 (obstore has no verbs for it)."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.store.address import S3Address


@dataclass(frozen=True, slots=True)
class Bucket:
    """Settings of a bucket; a note for each that could not be read."""

    versioning: bool = False
    object_lock: bool = False
    notes: tuple[str, ...] = ()


def inspect_bucket(location: S3Address, region: str) -> Bucket:
    """Ask for versioning and object lock. Never raises for a server that refuses or does not know the question."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.Session(profile_name=location.profile or None).client(
        "s3",
        region_name=region,
        endpoint_url=location.endpoint or None,
        verify=location.ca or None,
        config=Config(
            connect_timeout=5,
            read_timeout=20,
            retries={"total_max_attempts": 2},
            s3={"addressing_style": "virtual" if location.path_style is False else "auto"},
        ),
    )
    notes: list[str] = []
    versioning = object_lock = False
    try:
        answer = client.get_bucket_versioning(Bucket=location.bucket)
        versioning = answer.get("Status") == "Enabled"
    except (BotoCoreError, ClientError) as error:
        notes.append(f"versioning: {_short(error)}")
    try:
        answer = client.get_object_lock_configuration(Bucket=location.bucket)
        object_lock = answer.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "ObjectLockConfigurationNotFoundError":
            notes.append(f"object lock: {_short(error)}")
    except BotoCoreError as error:
        notes.append(f"object lock: {_short(error)}")
    return Bucket(versioning, object_lock, tuple(notes))


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
