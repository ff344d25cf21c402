"""What an answer of S3 means: from obstore's exceptions to `pipeline.errors`.

obstore keeps status and body of an answer only in its message. Its exception classes are not enough: 409 and 412
are one class, a 404 may mean a key, a bucket or a lost proxy, and every 5xx and 400 is a "generic" error.
"""

from __future__ import annotations

import re
from html import unescape

from pipeline.errors import (
    AccessDenied,
    AlreadyExists,
    CorruptObject,
    FailbackError,
    NotFound,
    StoreError,
    StoreFull,
    StoreUnavailable,
)

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9._-]{1,80})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")
_KIND = re.compile(r"HttpError \{\s*kind: (\w+)")
_OF_MANY = re.compile(r"request failed for key (\S+): (.{0,300}) \(code: (\w+)\)")
_DEBUG = "\n\nDebug source:"

_FULL = {"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "NoSpaceLeft"}
_AGAIN = {
    "RequestTimeout",  # S3 answers 400 when a body came too slowly
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "ServiceUnavailable",
    "InternalError",
    "BadDigest",  # damaged on the way
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    "IncompleteBody",
    "OperationAborted",
    "ConditionalRequestConflict",
}
UNSUPPORTED = (405, 501)
"""Statuses by which a server says that it does not have a verb."""
_CLOCK = {"RequestTimeTooSkewed", "RequestExpired"}
_ACTIONS = {
    "put": "s3:PutObject",
    "get": "s3:GetObject",
    "head": "s3:GetObject",
    "list": "s3:ListBucket",
    "delete": "s3:DeleteObject",
}
"""What a verb is called in a policy."""
ROLES = (
    "`failback repository policy --role exporter|importer|conductor|janitor|admin` prints the rights that are needed"
)
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}


def status_of(error: Exception) -> int | None:
    """The HTTP status of the answer that obstore complains about; None when there was no answer."""
    found = _STATUS.search(str(error).partition(_DEBUG)[0])
    return None if found is None else int(found.group(1))


def translate(error: Exception, *, verb: str, key: str, bucket: str, name: str) -> FailbackError:
    """The error of the tree that says what happened to `key`. Contains nothing of what was sent."""
    text = str(error)
    status = status_of(error)
    if status is None:
        return _without_answer(error, text, verb, key, name)
    code = _first(_CODE, text)
    reason = code or f"HTTP {status}"
    message = _first(_MESSAGE, text)
    what = f"cannot {verb} {key or 'objects'} in {name}: {reason}" + (f" ({message})" if message else "")

    if code == "NoSuchBucket":
        return StoreError(
            f"bucket {bucket} does not exist: cannot {verb} {key or 'objects'}",
            remedy="create the bucket, or correct its name, endpoint or region",
        )
    if status == 404:
        return _not_found(code, what, verb, key, name)
    if code in _FULL or status == 507:
        return StoreFull(what, remedy="free space or raise the quota of the store, or collect garbage")
    if verb == "put" and (status == 412 or (status == 409 and "Exists" in code)):
        return AlreadyExists(f"{key} already exists in {name}")
    if code in _AGAIN or (status >= 500 and status not in UNSUPPORTED) or status in (408, 409, 425, 429):
        return StoreUnavailable(what, remedy=_overload(status))
    if code in _CLOCK:
        return AccessDenied(
            what, remedy="this machine's clock differs from the store's by more than 15 minutes: set it"
        )
    if code in _EXPIRED:
        return AccessDenied(what, remedy="the credentials have expired: renew them")
    if status in (401, 403):
        return _denied(code, what, verb, key, bucket)
    if status == 416:
        return CorruptObject(f"{key} in {name} is shorter than the range that was asked for")
    if status in (301, 307, 308) or code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return StoreError(what, remedy=f"bucket {bucket} is in another region: name it with region=")
    return StoreError(what, remedy="the store refuses this request: check endpoint, region and path_style")


def _not_found(code: str, what: str, verb: str, key: str, name: str) -> StoreError:
    # HEAD has no body; the caller asks again with GET. A 404 without S3's code comes from something else.
    if code in ("NoSuchKey", "NoSuchVersion") or (verb == "head" and not code):
        return NotFound(f"{key} is not in {name}")
    return StoreError(what, remedy="the 404 is not one of S3: check the endpoint, or a proxy on the way")


def _without_answer(error: Exception, text: str, verb: str, key: str, name: str) -> StoreError:
    """Nothing came back, or not all of it; or a multi-delete, answered with 200, names a key that it left."""
    if found := _OF_MANY.search(text.partition(_DEBUG)[0]):
        return _left(found.group(1), found.group(2), found.group(3), name)
    if "credential provider" in text.partition(_DEBUG)[0]:
        return StoreUnavailable(
            f"cannot {verb} {key or 'objects'} in {name}: the credentials could not be refreshed",
            remedy="sign in again, or check the service that gives the role's credentials",
        )
    kind = _first(_KIND, text)
    what = f"cannot {verb} {key or 'objects'} in {name}"
    if "redirect without LOCATION" in text:
        return StoreError(f"{what}: redirected", remedy="the bucket is in another region: name it with region=")
    if "certificate" in text.lower():
        return StoreError(
            f"{what}: the server's certificate is not trusted",
            remedy="name the PEM file of its authority with ca=, and check the host name",
        )
    if kind == "Timeout":
        return StoreUnavailable(f"{what}: no answer in time", remedy="check the network and the store")
    if kind == "Connect":
        return StoreUnavailable(f"{what}: no connection", remedy="check endpoint, network and whether the store runs")
    if kind or "error decoding response body" in text or "HTTP error" in text:
        return StoreUnavailable(f"{what}: the connection was cut", remedy="check the network and the store")
    first = text.partition(_DEBUG)[0].strip().splitlines()
    reason = f"{type(error).__name__}: {first[0][:200] if first else ''}"
    return StoreError(f"{what}: {reason}", remedy="check the repository's address and what answers there")


def _left(path: str, message: str, code: str, name: str) -> StoreError:
    path = path.removeprefix(name.removeprefix("s3://").partition("/")[2] + "/")
    what = f"cannot delete {path} in {name}: {code} ({message})"
    if code in _AGAIN:
        return StoreUnavailable(what, remedy="check the store's health")
    if code == "AccessDenied":
        return AccessDenied(f"{what}; the credentials lack s3:DeleteObject on {path}, or it is locked", remedy=ROLES)
    if code in ("ObjectLocked", "InvalidRequest"):
        return AccessDenied(what, remedy="the object is locked: its lock ends by itself")
    return StoreError(what, remedy="look at the object with the store's own tools")


def _overload(status: int) -> str:
    return "the store asks to slow down: lower parallel" if status in (429, 503) else "check the store's health"


def _denied(code: str, what: str, verb: str, key: str, bucket: str) -> AccessDenied:
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"):
        return AccessDenied(what, remedy="the access key or its secret is wrong for this store: check the credentials")
    lacking = f"{what}; the credentials lack the right to {verb}: {_ACTIONS.get(verb, verb)} on {key or '*'}"
    remedy = ROLES if code == "AccessDenied" else "check the credentials, and the bucket's own settings and policy"
    return AccessDenied(f"{lacking} in bucket {bucket}", remedy=remedy)


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return unescape(found.group(1)) if found else ""
