"""The rights each role needs, as a table: an action of S3, the keys it is for, and what cannot be done without it.

A place is a pattern of keys below the repository's prefix, with `*` for anything. `{own}` stands for each machine the
role is for, `*` when it is for all. HEAD needs the right to get. Taking any line away breaks what the line says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["exporter", "importer", "janitor", "admin", "agent", "controller", "conductor", "approver"]

GET = "s3:GetObject"
PUT = "s3:PutObject"
DELETE = "s3:DeleteObject"
LIST = "s3:ListBucket"
GET_VERSION = "s3:GetObjectVersion"
DELETE_VERSION = "s3:DeleteObjectVersion"
LIST_VERSIONS = "s3:ListBucketVersions"

LISTING = (LIST, LIST_VERSIONS)
"""Actions on the bucket that a condition on the prefix narrows; the others are on objects."""
WHOLE_BUCKET = (
    "s3:GetBucketVersioning",
    "s3:GetBucketObjectLockConfiguration",
    "s3:PutBucketObjectLockConfiguration",
    "s3:GetLifecycleConfiguration",
)
"""Actions on the bucket's settings: they cannot be narrowed to a prefix."""


@dataclass(frozen=True, slots=True)
class Right:
    """`action` at `place`; without it `purpose` cannot be done. `versions`: only of use in a versioned bucket."""

    action: str
    place: str
    purpose: str
    versions: bool = False


_OPEN = (
    Right(GET, "repository.json", "open the repository"),
    Right(LIST, "features/*", "open the repository"),
    Right(LIST, "keys/*", "find the key slot of an encrypted repository"),
    Right(GET, "keys/*", "read the key slot of an encrypted repository"),
)
_MENDED = (
    Right(LIST, "relocations/*", "find chunks that were stored again elsewhere"),
    Right(GET, "relocations/*", "find chunks that were stored again elsewhere"),
)
_LOOK_BACK = (
    Right(LIST_VERSIONS, "packs/*", "read data that was overwritten or deleted", versions=True),
    Right(GET_VERSION, "packs/*", "read data that was overwritten or deleted", versions=True),
    Right(LIST_VERSIONS, "pages/*", "read an index that was overwritten or deleted", versions=True),
    Right(GET_VERSION, "pages/*", "read an index that was overwritten or deleted", versions=True),
    Right(LIST_VERSIONS, "manifests/*", "read a point that was overwritten or deleted", versions=True),
    Right(GET_VERSION, "manifests/*", "read a point that was overwritten or deleted", versions=True),
)

_IMPORT = (
    *_OPEN,
    Right(LIST, "manifests/*", "find the newest point"),
    Right(GET, "manifests/*", "read a point"),
    Right(LIST, "tombstones/*", "see which points are forgotten"),
    Right(GET, "tombstones/*", "see whether a forgotten point was given up by someone who may"),
    Right(LIST, "pages/*", "verify large points by listing"),
    Right(GET, "pages/*", "read the index of a point"),
    Right(LIST, "packs/*", "verify large points by listing"),
    Right(GET, "packs/*", "read data"),
    Right(GET, "verified/{own}/*", "see whether a point is noted as good"),
    Right(PUT, "verified/{own}/*", "note that a point is good"),
    Right(PUT, "holds/{own}/*", "hold the point that is on disks"),
    Right(LIST, "plans/*", "find plans"),
    Right(GET, "plans/*", "read a plan"),
    *_MENDED,
    *_LOOK_BACK,
)
_EXPORT = (
    Right(PUT, "manifests/{own}/*", "commit a point"),
    Right(LIST, "sessions/{own}/*", "see whether another export runs"),
    Right(GET, "sessions/{own}/*", "go on where a killed export ended"),
    Right(PUT, "sessions/{own}/*", "announce an export"),
    Right(PUT, "pages/*", "store the index"),
    Right(PUT, "packs/*", "store data"),
    Right(LIST, "scrub/damage/*", "send again what a scrub found damaged"),
)

RIGHTS: dict[Role, tuple[Right, ...]] = {
    "exporter": (
        *_OPEN,
        Right(LIST, "manifests/", "list the machines"),
        Right(LIST, "manifests/{own}/*", "find the newest point"),
        Right(GET, "manifests/{own}/*", "read the newest point"),
        Right(LIST, "tombstones/{own}/*", "see which points are forgotten"),
        Right(GET, "tombstones/{own}/*", "see whether a forgotten point was given up by someone who may"),
        Right(LIST, "pages/*", "verify large points by listing"),
        Right(GET, "pages/*", "read the index of the newest point"),
        Right(LIST, "packs/*", "verify large points by listing"),
        Right(GET, "packs/*", "verify a point"),
        *_EXPORT,
        *_MENDED,
    ),
    "importer": _IMPORT,
    "janitor": (
        *_OPEN,
        Right(LIST, "manifests/*", "find the points"),
        Right(GET, "manifests/*", "read a point"),
        Right(PUT, "manifests/*", "fence a dead export"),
        Right(DELETE, "manifests/*", "drop the manifests of forgotten points"),
        Right(LIST, "tombstones/*", "see which points are forgotten"),
        Right(GET, "tombstones/*", "see when a point was forgotten"),
        Right(PUT, "tombstones/*", "forget a point"),
        Right(LIST, "sessions/*", "find exports that run"),
        Right(GET, "sessions/*", "read what a running export has stored"),
        Right(DELETE, "sessions/*", "clear ended sessions away"),
        Right(LIST, "pages/*", "find indexes that nothing needs"),
        Right(GET, "pages/*", "read what a point needs"),
        Right(DELETE, "pages/*", "delete indexes that nothing needs"),
        Right(LIST, "packs/*", "find data that nothing needs"),
        Right(DELETE, "packs/*", "delete data that nothing needs"),
        Right(LIST, "gc/*", "find older plans"),
        Right(GET, "gc/*", "ask for the store's time"),
        Right(PUT, "gc/*", "publish what will be deleted"),
        Right(DELETE, "gc/*", "clear older plans away"),
        Right(LIST, "holds/*", "see which points are held"),
        Right(GET, "holds/*", "see which points are held"),
        Right(PUT, "holds/*", "hold a point"),
        Right(DELETE, "holds/*", "release a point"),
        Right(LIST, "verified/*", "see which points are known to be good"),
        Right(GET, "verified/*", "scrub the notes of them"),
        Right(DELETE, "verified/*", "clear notes of forgotten points away"),
        Right(LIST, "plans/*", "scrub plans"),
        Right(GET, "plans/*", "scrub plans"),
        *_MENDED,
        Right(LIST, "scrub/*", "go on where another host's scrub ended"),
        Right(GET, "scrub/*", "go on where another host's scrub ended"),
        Right(PUT, "scrub/*", "note what was scrubbed, and what is damaged"),
        Right(DELETE, "scrub/*", "clear old notes of scrubs away"),
        *(
            Right(action, f"{place}/*", "free the space of what is deleted", versions=True)
            for action in (LIST_VERSIONS, DELETE_VERSION)
            for place in ("packs", "pages", "manifests", "sessions", "gc", "holds", "verified", "scrub")
        ),
        Right(GET_VERSION, "pages/*", "read an index that was overwritten or deleted", versions=True),
        Right(GET_VERSION, "manifests/*", "see whether a point was overwritten", versions=True),
        Right("s3:GetObjectRetention", "*", "say until when what is locked stays", versions=True),
    ),
    "admin": (
        Right(LIST, "*", "look at everything"),
        Right(GET, "*", "read everything"),
        Right(PUT, "*", "make the repository, its key slots and everything else"),
        Right(DELETE, "*", "remove key slots and everything else"),
        Right("s3:GetBucketVersioning", "", "ask whether the bucket keeps versions"),
        Right("s3:GetLifecycleConfiguration", "", "ask whether a rule expires objects"),
        Right("s3:GetBucketObjectLockConfiguration", "", "ask whether the bucket can lock objects"),
        Right("s3:PutBucketObjectLockConfiguration", "", "set the bucket's lock", versions=True),
        Right(LIST_VERSIONS, "*", "look at older versions", versions=True),
        Right(GET_VERSION, "*", "read older versions", versions=True),
        Right(DELETE_VERSION, "*", "free the space of what is deleted", versions=True),
        Right("s3:GetObjectRetention", "*", "show locks", versions=True),
        Right("s3:PutObjectRetention", "*", "extend locks", versions=True),
    ),
    # {own} is the agent's id here.
    "agent": (
        Right(GET, "repository.json", "open the repository"),
        Right(LIST, "features/*", "open the repository"),
        Right(LIST, "manifests/*", "tell a point that is gone from one that may not be read"),
        Right(GET, "manifests/*", "read a point"),
        Right(GET, "pages/*", "read the index of a point"),
        Right(GET, "packs/*", "read data"),
        *_MENDED,
        *_LOOK_BACK,
        Right(LIST, "mailbox/{own}/*", "see that there is no order yet"),
        Right(GET, "mailbox/{own}/*", "read orders"),
        Right(PUT, "mailbox/{own}/answer", "answer a pairing code"),
        Right(PUT, "mailbox/{own}/alive", "give a sign of life"),
        Right(PUT, "mailbox/{own}/reports/*", "report"),
    ),
    "controller": (
        *_IMPORT,
        Right(LIST, "mailbox/*", "see which agents there are"),
        Right(GET, "mailbox/*", "read reports"),
        Right(PUT, "mailbox/*", "give orders"),
        Right(DELETE, "mailbox/*", "take the mailbox of an agent away"),
    ),
    # Where the target has workers it needs what a controller may besides.
    "conductor": (
        *_IMPORT,
        *_EXPORT,
        Right(PUT, "plans/*", "store a plan"),
        Right(LIST, "verified/{own}/*", "see when a point was found good"),
        Right(LIST, "runs/*", "find runs"),
        Right(GET, "runs/*", "read what a run has done, and what people decided"),
        Right(PUT, "runs/*", "write down what a run does, and give signs of life"),
        Right(LIST, "leases/{own}/*", "see who may run a machine"),
        Right(GET, "leases/{own}/*", "see who may run a machine"),
        Right(PUT, "leases/{own}/*", "take a machine over, and give it back"),
        Right(PUT, "sets/*", "form a set of a group's points"),
        Right(GET, "sets/*", "find the set that a killed conductor formed"),
        Right(GET, "holds/{own}/run-*", "release what a run held"),
        Right(DELETE, "holds/{own}/run-*", "release what a run held"),
    ),
    "approver": (
        *_OPEN,
        Right(LIST, "runs/*", "find runs"),
        Right(GET, "runs/*", "read what a run has done, and what it asks"),
        Right(PUT, "runs/*/journal/*", "approve, hold, roll back, and whatever else a person says"),
        Right(GET, "plans/*", "read the plan of a run"),
    ),
}
