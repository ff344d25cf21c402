"""Who we are to S3: boto3's credential chain, without paying for boto3 where the environment says it all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pipeline.errors import AccessDenied

if TYPE_CHECKING:
    from obstore.store import S3Credential

REFRESH = timedelta(minutes=5)
"""How long an answer of a chain that does not tell an expiry is kept: botocore refreshes on its own when asked."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Either keys, or a `provider` that answers with keys and their expiry. `region` is that of the profile, if any."""

    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    provider: Callable[[], S3Credential] | None = None
    region: str = ""


def find_credentials(profile: str = "") -> Credentials:
    """From the environment when it is complete (saves 160 ms of imports), else through botocore's chain.

    The chain knows profiles, SSO, assumed roles, web identity, container and instance roles.
    """
    profile = profile or os.environ.get("AWS_PROFILE", "")
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    region = os.environ.get("AWS_REGION", "") or os.environ.get("AWS_DEFAULT_REGION", "")
    if access and secret and not profile:
        return Credentials(access, secret, os.environ.get("AWS_SESSION_TOKEN", ""), region=region)
    return _from_chain(profile, region)


def _from_chain(profile: str, region: str) -> Credentials:
    import botocore.session
    from botocore.exceptions import BotoCoreError, ProfileNotFound

    session = botocore.session.Session(profile=profile or None)
    try:
        chain = session.get_credentials()
        region = region or session.get_config_variable("region") or ""
    except ProfileNotFound as error:
        raise AccessDenied(
            f"there is no AWS profile {profile!r}", remedy="correct profile=, AWS_PROFILE or ~/.aws/config"
        ) from error
    except BotoCoreError as error:
        raise AccessDenied(f"no credentials for S3: {error}", remedy="sign in again, or correct ~/.aws") from error
    if chain is None:
        raise AccessDenied(
            "no credentials for S3",
            remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile of ~/.aws with profile=",
        )

    try:
        chain.get_frozen_credentials()
    except BotoCoreError as error:
        # Now it is a matter for the person who starts this; later, while it runs, it may pass and is tried again.
        raise AccessDenied(f"no credentials for S3: {error}", remedy="sign in again, or correct ~/.aws") from error
    return Credentials(provider=lambda: _freeze(chain), region=region)


def _freeze(chain: Any) -> S3Credential:
    """The chain's keys now; botocore refreshes them when they are about to expire."""
    keys = chain.get_frozen_credentials()
    # Asked again after this time at the latest, and earlier when the keys themselves end earlier.
    until = datetime.now(UTC) + REFRESH
    expiry = getattr(chain, "_expiry_time", None)
    if isinstance(expiry, datetime):
        until = min(until, expiry.astimezone(UTC))  # obstore takes no other zone
    return {
        "access_key_id": keys.access_key,
        "secret_access_key": keys.secret_key,
        "token": keys.token,
        "expires_at": until,
    }
