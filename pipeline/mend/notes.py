"""What is written besides points: key slots, sessions, and small records. No point is lost with them, but somebody
misses each: a scrub names what is damaged, and what to do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from manifests.slot import check_signature, read_document
from pipeline.errors import FormatError, NotFound
from pipeline.mend.check import check_by_place
from pipeline.mend.damage import Damage
from pipeline.store.base import Store

NOTES = {
    "keys/": "restore it from an older version or copy of the bucket; other slots open the repository",
    "sessions/": "end that export or wait: a collection clears its session away a day after its last sign",
    "gc/": "nothing depends on it: the next collections write it anew, or clear it away",
    "holds/": "collections stop at it: remove it, and hold the point again",
    "verified/": "remove it, and verify the point again",
    "plans/": "restore it from an older version or copy of the bucket; a run of it cannot go on without",
    "scrub/": "nothing is lost: remove it, and scrubs write it anew",
}
"""By place: what to do when an object there is damaged."""


def check_notes(store: Store, *, root: bytes | None = None, parallel: int = 6) -> list[Damage]:
    """What is damaged of them. `root`: the ring's public key, by which also those who forge are found out. Raises
    StoreError."""

    def one(key: str) -> Damage | None:
        damage = _check_key(store, key, root) if key.startswith("keys/") else check_by_place(store, key)
        if damage is None:
            return None
        remedy = next(text for prefix, text in NOTES.items() if key.startswith(prefix))
        return replace(damage, detail=f"{damage.detail}; {remedy}")

    keys = [info.key for prefix in NOTES for info in store.list(prefix)]
    with ThreadPoolExecutor(parallel, "scrub") as pool:
        return [damage for damage in pool.map(one, keys) if damage]


def _check_key(store: Store, key: str, root: bytes | None) -> Damage | None:
    try:
        document = read_document(bytes(store.get(key)), key)
        if root is not None:
            check_signature(document, root, key)
    except NotFound:
        return None
    except FormatError as error:
        return Damage(key, "bytes", error.message)
    return None
