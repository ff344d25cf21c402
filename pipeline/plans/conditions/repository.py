"""`repository`: it is reachable, and takes what is written."""

from __future__ import annotations

from manifests.envelope import Kind
from manifests.machine import Model
from manifests.manifest import decode_record, encode_record
from pipeline.catalogue import now
from pipeline.collect.record import by
from pipeline.plans.condition import Answer, Look, World

KEY = "probe/writable"


class RepositorySettings(Model):
    pass


class RepositoryLook(Look[RepositorySettings]):
    """Writes a small object and reads it back."""

    Settings = RepositorySettings

    def look(self, world: World) -> Answer:
        repository = world.repository
        record = {"time": now(), "by": by()}
        repository.store.put(KEY, encode_record(Kind.RECORD, record, sealing=repository.sealing, key=KEY))
        decode_record(repository.store.get(KEY), Kind.RECORD, sealing=repository.sealing, key=KEY)
        return Answer(True, f"{repository.store.name} is reachable and takes what is written")
