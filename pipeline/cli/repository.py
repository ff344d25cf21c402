"""`failback repository`: make a repository, see what it is, find out what its store can do."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.key_options import KeyCommandOption, KeyFileOption, PassphraseFileOption
from pipeline.cli.policy import policy
from pipeline.cli.protect import LockName
from pipeline.errors import UsageError
from pipeline.units import count, size

if TYPE_CHECKING:
    from manifests.slot import Slot

app = typer.Typer(no_args_is_help=True)

_ABILITIES = {
    "conditional_put": ("create-only writes", "exactly one of two racing writers wins"),
    "ranged_get": ("ranged reads", "a chunk is read without its pack"),
    "multi_delete": ("deleting many objects at once", ""),
    "list_after": ("listings that start behind a key", ""),
    "checksum_headers": ("checksums of uploads are compared", ""),
    "object_lock": ("object lock", ""),
    "versioning": ("versioning", ""),
}


@command
def init(
    invocation: Invocation,
    chunk_size: Annotated[
        int, typer.Option("--chunk-size", metavar="KIB", help="Default size of a chunk: 64, 128, 256, 512 or 1024 KiB.")
    ] = 64,
    key_file: KeyFileOption = None,
    passphrase_file: PassphraseFileOption = None,
    key_command: KeyCommandOption = None,
    no_encryption: Annotated[
        bool, typer.Option("--no-encryption", help="Everybody who can read the bucket can read the disks.")
    ] = False,
    lock: Annotated[
        LockName | None, typer.Option(help="Lock new objects of the whole bucket, which must have object lock.")
    ] = None,
    lock_days: Annotated[int, typer.Option(min=0, max=36500, metavar="N", help="With --lock: for N days.")] = 0,
) -> Ending:
    """Probe the store and make an encrypted repository there. A bucket must exist; a directory is made.

    The key is the one the options name; without them what FAILBACK_KEY_FILE, FAILBACK_PASSPHRASE_FILE,
    FAILBACK_KEY_COMMAND or FAILBACK_PASSPHRASE say; without these a passphrase is asked for. Without the key nobody can
    restore anything: keep a copy elsewhere, and run `failback key export` for a recovery sheet.
    """
    from manifests.repository import KEY
    from pipeline.guard.neighbours import refuse_nested
    from pipeline.keys.known import Expected, Pin
    from pipeline.keys.sources import new_lock
    from pipeline.repository import Repository
    from pipeline.store.address import parse_address, place_of
    from pipeline.store.open import open_store

    if no_encryption and (key_file or passphrase_file or key_command):
        raise UsageError("--no-encryption and a key do not go together", remedy="leave one of them away")
    if (lock is None) != (lock_days == 0):
        raise UsageError("--lock and --lock-days go together", remedy="give both, or none")
    if no_encryption and invocation.locks(ask=False):
        raise UsageError("--no-encryption, and a key is set", remedy="unset FAILBACK_KEY_FILE and the like")
    key_lock = None
    if not no_encryption:
        key_lock = new_lock(
            invocation.settings, key_file=key_file, passphrase_file=passphrase_file, key_command=key_command
        )
    address = parse_address(invocation.address)
    store, settings = invocation.open_store(create=True), invocation.settings
    refuse_nested(address, store, lambda other: open_store(other, settings))
    if lock is not None and store.head(KEY) is None:  # else there is a repository, and nothing is changed
        _set_lock(invocation, lock, lock_days)
    repository = Repository.init(store, chunk_size=chunk_size << 10, lock=key_lock)
    _say_rules(invocation)
    Expected(settings.repository_id, settings.key_fingerprint).check(repository.document, store.name)
    Pin(settings.state_dir, place_of(invocation.address)).remember(repository.document, anew=True)
    invocation.output.say(f"made repository {repository.id.hex()} at {repository.store.name}")
    encryption = repository.document.encryption
    if key_lock is not None and encryption is not None:
        invocation.output.say(
            f"encrypted with the key fingerprint {encryption.fingerprint}; it opens with {key_lock.describe()}",
            "keep a copy of that elsewhere: without it nobody can restore anything",
        )
    else:
        invocation.warn("it is not encrypted: everybody who can read the bucket can read the disks")
    _say_abilities(invocation, repository.document.abilities)
    return Ending(values=_described(repository.document, repository.store.name))


@command
def info(invocation: Invocation) -> Ending:
    """Show what the repository is: its id, format, chunk size, the store's abilities, how many machines it holds."""
    from pipeline.catalogue import machines

    repository = invocation.open_repository()
    document = repository.document
    found = machines(repository)
    invocation.output.say(
        f"repository  {document.id}",
        f"at          {repository.store.name}",
        f"made        {document.created}",
        f"format      {document.format}, {'encrypted' if document.encryption else 'not encrypted'}",
        *([f"fingerprint {document.encryption.fingerprint}"] if document.encryption else []),
        *([f"opened by   {_slot(repository.opened.slot)}"] if repository.opened else []),
        f"chunks      {size(document.chunk_size)}",
        f"machines    {len(found)}",
    )
    _say_abilities(invocation, document.abilities)
    _say_rules(invocation)
    return Ending(values={**_described(document, repository.store.name), "machines": len(found)})


@command
def probe(invocation: Invocation) -> Ending:
    """Find out what the store can do, with small objects below probe/ that are deleted again."""
    store = invocation.open_store()
    abilities = asdict(store.probe())
    invocation.output.say(f"{store.name} can do:")
    _say_abilities(invocation, abilities)
    return Ending(values={"address": store.name, "abilities": abilities})


def _set_lock(invocation: Invocation, lock: LockName, days: int) -> None:
    from pipeline.guard.retention import Locks
    from pipeline.store.address import parse_address

    locks = Locks(parse_address(invocation.address))
    invocation.stack.callback(locks.close)
    locks.set_default(lock.mode, days)
    invocation.output.say(f"every new object of the bucket is locked for {count(days, 'day')} ({lock.value})")


def _say_rules(invocation: Invocation) -> None:
    """Warn of life-cycle rules; what may not be asked is told, and no failure."""
    from pipeline.guard.lifecycle import looked_at
    from pipeline.store.address import S3Address, parse_address

    address = parse_address(invocation.address)
    if not isinstance(address, S3Address):
        return
    for concern in looked_at(address):
        if concern.loses:
            invocation.warn(f"{concern.text}; {concern.remedy}")
        else:
            invocation.output.say(f"      {concern.text}")


def _slot(slot: Slot) -> str:
    return f"key slot {slot.name} ({slot.label}): {slot.role}{f' of {slot.machine}' if slot.machine else ''}"


def _described(document: Any, address: str) -> dict[str, Any]:
    return {
        "repository": document.id,
        "address": address,
        "created": document.created,
        "format": document.format,
        "chunk_size": document.chunk_size,
        "fingerprint": document.encryption.fingerprint if document.encryption else None,
        "abilities": document.abilities,
    }


def _say_abilities(invocation: Invocation, abilities: dict[str, Any]) -> None:
    for key, (words, use) in _ABILITIES.items():
        if key in abilities:
            answer = "yes" if abilities[key] else "no"
            invocation.output.say(f"  {answer:<4}{words}{f' ({use})' if use and not abilities[key] else ''}")
    skew = float(abilities.get("clock_skew", 0))
    if abs(skew) >= 60:
        invocation.warn(f"the store's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's")
    for note in abilities.get("notes", ()):
        invocation.output.say(f"      {note}")
    if not abilities.get("conditional_put", True):
        invocation.warn("without create-only writes, let only one host export a machine at a time")


app.command("init")(init)
app.command("info")(info)
app.command("probe")(probe)
app.command("policy")(policy)
