"""A hook whose attempts a test scripts. It comes in as that of any other package does: by an entry point."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from manifests.machine import Model
from pipeline.verify.checks import Check
from pipeline.verify.hook import Attempt, Hook, Outcome
from pipeline.verify.subject import Subject

Script = Callable[[Subject, Attempt], Outcome]


class ProbeSettings(Model):
    script: str


class ProbeHook(Hook[ProbeSettings]):
    Settings = ProbeSettings
    form = "probe:SCRIPT"
    scripts: ClassVar[dict[str, Script]] = {}

    @classmethod
    def short(cls, rest: str) -> dict[str, Any]:
        return {"script": rest}

    def look(self, subject: Subject, attempt: Attempt) -> Outcome:
        return self.scripts[self.settings.script](subject, attempt)


def probe(name: str, script: Script, **values: Any) -> Check:
    """A check of that name whose attempts are calls of `script`."""
    ProbeHook.scripts[name] = script
    return Check(name=name, hook="probe", settings={"script": name}, **values)


@contextmanager
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, **hooks: str) -> Iterator[None]:
    """As if a package had been installed that has these hooks (name = module:attribute)."""
    info = folder / f"probe_{abs(hash(tuple(hooks)))}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in hooks.items())
    (info / "entry_points.txt").write_text(f"[failback.hooks]\n{lines}")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield
    ProbeHook.scripts.clear()
