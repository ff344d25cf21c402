"""`repository`: it is reachable, and takes what is written."""

from __future__ import annotations

from manifests.machine import Model
from pipeline.plans.condition import Answer, Look, World

KEY = "runs/clock"
"""What is written anew to learn the store's time (FORMAT.md, section 18): who conducts runs may write there."""


class RepositorySettings(Model):
    pass


class RepositoryLook(Look[RepositorySettings]):
    Settings = RepositorySettings

    def look(self, world: World) -> Answer:
        store = world.repository.store
        store.put(KEY, b"{}")
        store.get(KEY)
        return Answer(True, f"{store.name} is reachable and takes what is written")
