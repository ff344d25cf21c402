"""Checks of one stored object: by its name, and with a key down to every chunk."""

from __future__ import annotations

from manifests.envelope import TRAILER_SIZE, check_header, object_id, open_by_id, place_checksum
from manifests.pack import ChunkDecoder, read_table
from manifests.sealing import Buffer
from pipeline.errors import CorruptObject, FormatError, NotFound
from pipeline.mend.damage import Damage
from pipeline.repository import Repository
from pipeline.store.base import Store


def check_by_name(store: Store, key: str) -> tuple[Damage | None, memoryview | None]:
    """(what is wrong, the bytes) of a pack or index object. (None, None): it is gone, which a collector may do."""
    try:
        data = memoryview(store.get(key))
    except NotFound:
        return None, None
    except CorruptObject as error:
        return Damage(key, "bytes", error.message), None
    if object_id(data) != bytes.fromhex(key[-64:]):
        return Damage(key, "bytes", f"{key}: its {len(data)} bytes do not match its name"), data
    return None, data


def check_by_place(store: Store, key: str) -> Damage | None:
    """What is wrong with an object that is named by its place. Needs no key: who forges one is found out by readers."""
    try:
        data = memoryview(store.get(key))
    except NotFound:
        return None
    if not fits_place(data, key):
        return Damage(key, "bytes", f"{key} is damaged or was moved there: its checksum does not match")
    return None


def fits_place(data: Buffer, key: str) -> bool:
    """Whether these bytes were written at this key, whoever wrote them."""
    view = memoryview(data)
    return len(view) > TRAILER_SIZE and place_checksum(view[:-TRAILER_SIZE], key) == bytes(view[-TRAILER_SIZE:])


def check_content(repository: Repository, key: str, data: memoryview) -> Damage | None:
    """What is wrong inside an object whose bytes match its name: every chunk of a pack is decoded and hashed.

    Raises KeyRefused when this client's key does not open it.
    """
    try:
        if key.startswith("packs/"):
            _check_pack(repository, key, data)
        else:
            kind = check_header(data, sealing=repository.sealing, name=key)
            open_by_id(data, kind, bytes.fromhex(key[-64:]), sealing=repository.sealing, name=key)
    except FormatError as error:
        return Damage(key, "content", error.message)
    return None


def _check_pack(repository: Repository, key: str, data: memoryview) -> None:
    table = read_table(data, sealing=repository.sealing, name=key)
    decoder = ChunkDecoder(table.chunk_size)
    cipher = repository.sealing.data_key(data)
    columns = (table.offsets.tolist(), table.lengths.tolist(), table.flags.tolist())
    for slot, (chunk_id, offset, length, flags) in enumerate(zip(table.ids, *columns, strict=True)):
        name = f"{key}, the chunk at byte {offset},"
        sealed = data[offset : offset + length]
        plain = decoder.decode(sealed, flags, key=cipher, slot=slot, chunk_id=chunk_id, name=name)
        if repository.chunk_id(plain) != chunk_id:
            raise CorruptObject(f"{name} does not have the content its table says")
