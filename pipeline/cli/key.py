"""`failback key`: who may open an encrypted repository, and as what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.invocation import Ending, Invocation, command
from pipeline.cli.key_options import KeyCommandOption, KeyFileOption, PassphraseFileOption
from pipeline.errors import UsageError
from pipeline.units import moment

if TYPE_CHECKING:
    from manifests.slot import Slot
    from pipeline.keys.ring import Opened
    from pipeline.repository import Repository

app = typer.Typer(no_args_is_help=True)
_ROLES = {
    "admin": "everything, and giving keys to others",
    "exporter": "exporting, with --machine of one machine only",
    "importer": "restoring and verifying",
    "conductor": "exporting all machines, restoring, verifying, and conducting runs",
    "janitor": "forgetting and collecting, without reading any data",
}


@command
def add(
    invocation: Invocation,
    role: Annotated[str, typer.Option(metavar="ROLE", help="admin, exporter, importer, conductor or janitor.")],
    label: Annotated[str, typer.Option(metavar="TEXT", help="Whose key it is; for people.")],
    machine: Annotated[
        str | None, typer.Option(metavar="MACHINE", help="The one machine that this exporter may write.")
    ] = None,
    key_file: KeyFileOption = None,
    passphrase_file: PassphraseFileOption = None,
    key_command: KeyCommandOption = None,
) -> Ending:
    """Give the repository another key. Takes an administrator's key.

    With none of the options a new passphrase is asked for.
    """
    from pipeline.keys.ring import put_slot
    from pipeline.keys.sources import new_lock

    if role not in _ROLES:
        raise UsageError(
            f"there is no role {role!r}", remedy="; ".join(f"{name}: {what}" for name, what in _ROLES.items())
        )
    repository, opened = _open(invocation)
    # What opens the repository now must not silently become the new slot's key, too.
    lock = new_lock(None, key_file=key_file, passphrase_file=passphrase_file, key_command=key_command)
    slot = put_slot(
        repository.store,
        repository.document,
        opened.ring,
        lock,
        role=role,
        label=label,
        machine=machine,
        create=repository.conditional_put,
    )
    what = f"exporting {machine}, and nothing else" if machine else _ROLES[role]
    invocation.output.say(f"key slot {slot.name} ({label}) opens with {lock.describe()}: {what}")
    return Ending(values={"slot": slot.name, "role": role, "label": label, "machine": machine})


@command
def list_(invocation: Invocation) -> Ending:
    """Show all key slots: what they are for, how they are opened, whether they were changed by somebody."""
    from dataclasses import asdict

    from manifests.slot import check_signature
    from pipeline.errors import Forged
    from pipeline.keys.ring import slots

    repository, opened = _open(invocation)
    found, problems = slots(repository.store, repository.document)
    rows: list[dict[str, Any]] = []
    for slot in found:
        try:
            check_signature(asdict(slot), opened.ring.root, slot.key)
        except Forged as error:
            problems.append(error.message)
            continue
        mine = " <- this one" if slot.name == opened.slot.name else ""
        scope = f" of {slot.machine}" if slot.machine else ""
        kind = str(slot.lock.get("kind", ""))
        invocation.output.say(
            f"{slot.name}  {slot.role + scope:<24} {kind:<11} {moment(slot.created)}  {slot.label}{mine}"
        )
        rows.append({"slot": slot.name, "role": slot.role, "machine": slot.machine, "kind": slot.lock.get("kind"),
                     "label": slot.label, "created": slot.created})  # fmt: skip
    for problem in problems:
        invocation.warn(problem)
    invocation.output.say(f"generation of the keys: {opened.ring.generation}")
    return Ending(values={"slots": rows, "problems": problems, "generation": opened.ring.generation})


@command
def remove(
    invocation: Invocation,
    slot: Annotated[str, typer.Argument(metavar="SLOT", help="Its name, as `failback key list` shows it.")],
) -> Ending:
    """Remove a key slot, and believe nothing more that its holder signs; what they signed until now stays good.

    Who copied the keys that were inside can still read what is in the bucket now: `failback key rotate --data` begins
    new keys for all that is written later.
    """
    from pipeline.keys.ring import remove_slot, revoke, slots
    from pipeline.keys.signed import signed_by

    repository, opened = _open(invocation)
    found = _find(repository, slot)
    if found.role == "admin" and found.name == opened.slot.name:
        others = [s for s in slots(repository.store, repository.document)[0] if s.role == "admin" and s != found]
        if others:  # of the last one `remove_slot` says more
            raise UsageError(
                f"key slot {found.name} ({found.label}) is the one that opened the repository now",
                remedy="open it with another administrator's key, which proves that good, and remove this slot then",
            )
    hashes = signed_by(repository, found) if found.writer else []
    revoke(repository.store, repository.document, opened.ring, found, hashes, create=repository.conditional_put)
    remove_slot(repository.store, repository.document, found)
    invocation.output.say(
        f"key slot {found.name} ({found.label}) is removed; {len(hashes)} objects that it signed stay good",
        "a copy of its keys still opens what is there now: `failback key rotate --data` begins new ones",
    )
    return Ending(values={"slot": found.name, "believed": len(hashes)})


@command
def rotate(
    invocation: Invocation,
    data: Annotated[
        bool, typer.Option("--data", help="Begin new keys for everything that is written from now on.")
    ] = False,
    key_file: KeyFileOption = None,
    passphrase_file: PassphraseFileOption = None,
    key_command: KeyCommandOption = None,
) -> Ending:
    """Change what opens the slot of this key; with --data begin new data keys, which all slots get.

    After --data the next export of each machine sends everything anew, so that nothing in it depends on old keys.
    """
    from pipeline.keys.ring import put_slot, remove_slot, rotate_data
    from pipeline.keys.sources import new_lock

    repository, opened = _open(invocation)
    store, document = repository.store, repository.document
    if data:
        number = rotate_data(store, document, opened.ring, create=repository.conditional_put)
        invocation.output.say(
            f"generation {number} of the keys begins: the next export of each machine sends everything anew",
            "older points still open with the old keys, until they are forgotten and collected",
        )
        return Ending(values={"generation": number})
    if not (key_file or passphrase_file or key_command):
        raise UsageError(
            "nothing says what this slot shall open with", remedy="give --key-file, --passphrase-file or --key-command"
        )
    if opened.slot.role != "admin":
        raise UsageError(f"this key is an {opened.slot.role}'s: it can not make a slot", remedy="ask an administrator")
    lock = new_lock(invocation.settings, key_file=key_file, passphrase_file=passphrase_file, key_command=key_command)
    new = put_slot(
        store, document, opened.ring, lock, role="admin", label=opened.slot.label, create=repository.conditional_put
    )
    remove_slot(store, document, opened.slot)
    invocation.output.say(f"key slot {new.name} opens with {lock.describe()}; slot {opened.slot.name} is removed")
    return Ending(values={"slot": new.name, "removed": opened.slot.name})


@command
def export(
    invocation: Invocation,
    with_key: Annotated[
        bool, typer.Option("--with-key", help="Make a key slot for the safe, and print its key on the sheet.")
    ] = False,
) -> Ending:
    """Print the recovery sheet: what a fresh host compares the repository with; with --with-key a key for the safe."""
    from pipeline.catalogue import machines, points
    from pipeline.keys.ring import put_slot
    from pipeline.keys.sheet import PrintedKey
    from pipeline.store.address import parse_address

    repository, opened = _open(invocation)
    document = repository.document
    assert document.encryption is not None
    address = str(parse_address(invocation.address))  # with the endpoint: a fresh host has nothing else to find it by
    say = invocation.output.say
    say(
        "Recovery sheet of a failback repository",
        f"address      {address}",
        f"id           {document.id}",
        f"fingerprint  {document.encryption.fingerprint}",
        f"made         {document.created}",
        "",
        "newest points when this sheet was printed:",
    )
    newest = {}
    for machine in machines(repository):
        for point in points(repository, machine):
            newest[machine] = {"sequence": point.manifest.sequence, "time": point.manifest.time}
        if machine in newest:
            say(f"  {machine}@{newest[machine]['sequence']}  {moment(str(newest[machine]['time']))}")
    values: dict[str, Any] = {
        "address": address, "repository": document.id, "fingerprint": document.encryption.fingerprint,
        "machines": newest,
    }  # fmt: skip
    if with_key:
        lock = PrintedKey()
        slot = put_slot(
            repository.store, document, opened.ring, lock, role="admin", label="recovery sheet",
            create=repository.conditional_put,
        )  # fmt: skip
        say(
            "",
            f"key of slot {slot.name}, an administrator's. Write it into a file as one line and name that file in "
            "FAILBACK_KEY_FILE:",
            "",
            f"  {lock.line}",
        )
        values |= {"slot": slot.name, "key": lock.line}
    return Ending(values=values)


def _open(invocation: Invocation) -> tuple[Repository, Opened]:
    repository = invocation.open_repository()
    if repository.opened is None:
        raise UsageError(
            f"{repository.store.name} is not encrypted: it has no keys",
            remedy="make an encrypted repository and copy the points into it",
        )
    return repository, repository.opened


def _find(repository: Repository, name: str) -> Slot:
    from pipeline.keys.ring import slots

    found, _problems = slots(repository.store, repository.document)
    for slot in found:
        if slot.name == name:
            return slot
    raise UsageError(f"there is no key slot {name}", remedy="`failback key list` shows them")


app.command("add")(add)
app.command("list")(list_)
app.command("remove")(remove)
app.command("rotate")(rotate)
app.command("export")(export)
