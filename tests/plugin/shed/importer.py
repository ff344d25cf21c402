"""An importer with copies as layers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.catalogue import Point
from pipeline.errors import TargetError, Unsupported, UsageError
from pipeline.target import (
    Abilities,
    Build,
    CommandResult,
    Context,
    DiskRestored,
    Endpoint,
    Finding,
    Intent,
    Network,
    Observation,
    Place,
    Purpose,
    Stage,
)
from pipeline.transfer.local import LocalDisk, checked, forecast_local, held_local, opened, stage_local
from pipeline.wanted import Wanted

NETWORKS = ("garden",)


class ShedImporter:
    """`<state>/<marker>/`: `disk0.raw`... as staged, `machine/` with copies of them, `machine.json` when that is whole,
    `dropping.json` in its stead while it is taken away, `on` while it runs, `kept`."""

    def __init__(self, context: Context) -> None:
        self.abilities = Abilities(layer="clone", console=frozenset({"text", "picture"}))
        self._context = context
        self._root = context.out or context.state

    def examine(self) -> list[Finding]:
        return [Finding("note", "door", "it is open")]

    def preflight(self, point: Point, wanted: Wanted, intent: Intent) -> list[Finding]:
        if unknown := wanted.options.keys() - {"colour"}:
            raise UsageError(f"the shed has no option {min(unknown)}", remedy="it has colour")
        return [
            Finding("error", f"network {n.name}", f"the shed has no network {n.name}", f"it has {', '.join(NETWORKS)}")
            for n in wanted.networks
            if n.name is not None and n.name not in NETWORKS
        ]

    def find(self, marker: uuid.UUID) -> Place | None:
        folder = self._folder(marker)
        if not folder.exists():
            return None
        machine = json.loads((folder / "place.json").read_text())["machine"]
        stage = self._staged(folder)
        if (folder / "dropping.json").exists():
            build = Build.from_json((folder / "dropping.json").read_text())
            return Place(marker, machine, "layered", stage, replace(build, booted=False))
        if not (folder / "machine.json").exists():
            begun = any((folder / "known").glob("*"))
            return Place(marker, machine, "staged" if stage else "staging" if begun else "prepared", stage)
        build = Build.from_json((folder / "machine.json").read_text())
        on = (folder / "on").exists()
        return Place(
            marker, machine, "running" if on else "kept" if (folder / "kept").exists() else "layered", stage, build
        )

    def prepare(self, point: Point, wanted: Wanted, marker: uuid.UUID) -> Place:
        folder = self._folder(marker)
        if not folder.exists():
            made = folder.with_suffix(".new")
            made.mkdir(parents=True, exist_ok=True)
            numbers = [disk.number for disk in point.manifest.disks]
            (made / "place.json").write_text(json.dumps({"machine": point.manifest.machine.name, "disks": numbers}))
            made.rename(folder)
        return self.find(marker) or Place(marker, point.manifest.machine.name, "prepared")

    def stage(self, place: Place, point: Point, wanted: Wanted, *, instant: bool = False) -> Stage:
        _die("stage")
        folder = self._folder(place.marker)
        if (folder / "machine.json").exists() or (folder / "dropping.json").exists():
            raise TargetError(f"{place.machine} is built on its disks")
        with opened(self._context.seeds) as seeds:
            done = tuple(
                stage_local(
                    self._context.repository,
                    point,
                    disk,
                    _local(folder, disk.number),
                    seeds=seeds,
                    watch=checked(self._context.control),
                )
                for disk in point.manifest.disks
            )
        _die("staged")
        stage = self._staged(folder)
        assert stage is not None
        return replace(stage, disks=done)

    def forecast(self, place: Place | None, point: Point, wanted: Wanted) -> list[DiskRestored]:
        folder = self._folder(place.marker) if place else self._root / "nothing"
        return [
            forecast_local(self._context.repository, point, disk, _local(folder, disk.number))
            for disk in point.manifest.disks
        ]

    def check(self, stage: Stage) -> str:
        now = self._staged(Path(stage.ref["folder"]))
        return "" if now and now.guard else "a disk was written to"

    def build(self, place: Place, stage: Stage, wanted: Wanted, purpose: Purpose) -> Build:
        folder = self._folder(place.marker)
        if (folder / "dropping.json").exists():
            self._drop(folder)
        if (folder / "machine.json").exists():
            build = Build.from_json((folder / "machine.json").read_text())
            if (build.purpose, build.name) != (purpose, wanted.name):
                raise TargetError(f"{build.name} is built there already")
            return build
        for network in wanted.networks:
            if network.name not in (None, *NETWORKS):
                raise TargetError(f"the shed has no network {network.name}", remedy=f"it has {', '.join(NETWORKS)}")
        shutil.rmtree(folder / "machine", ignore_errors=True)
        (folder / "machine").mkdir()
        for disk in sorted(folder.glob("disk*.raw")):
            shutil.copy(disk, folder / "machine")
            _die("build")
        build = Build(place.marker, purpose, wanted.name, wanted.networks, ref={"folder": str(folder / "machine")})
        _write(folder / "machine.json", build.to_json())
        _die("built")
        return build

    def boot(self, build: Build, networks: Sequence[Network]) -> Build:
        folder = self._folder(build.marker)
        running = replace(build, booted=True)
        _write(folder / "machine.json", running.to_json())
        _die("boot")
        _write(folder / "on", f"{build.name} is up\nlogin: ")
        _die("booted")
        return running

    def observe(self, build: Build) -> Observation:
        on = self._folder(build.marker) / "on"
        return Observation("on", console=on.read_text()) if on.exists() else Observation("off")

    def picture(self, build: Build) -> bytes | None:
        return b"\x89PNG\r\n\x1a\nof the shed"

    def reach(self, build: Build, port: int) -> Endpoint | None:
        return None

    def accepted(self, build: Build, port: int) -> bool | None:
        return None

    def command(self, build: Build, arguments: Sequence[str], *, stdin: bytes = b"", seconds: float) -> CommandResult:
        raise Unsupported("nobody is in the shed")

    def stop(self, build: Build, *, seconds: float = 60.0) -> Observation:
        (self._folder(build.marker) / "on").unlink(missing_ok=True)
        return self.observe(build)

    def finish(self, place: Place, build: Build, *, keep: bool) -> Stage:
        folder = self._folder(place.marker)
        if (folder / "on").exists():
            raise TargetError(f"{build.name} runs")
        stage = self._staged(folder)
        if stage is None:
            raise TargetError("the disks are gone")
        if keep:
            (folder / "kept").touch()
        elif (folder / "kept").exists():
            raise TargetError(f"{build.name} is kept")
        else:
            if (folder / "machine.json").exists():
                (folder / "machine.json").rename(folder / "dropping.json")
            self._drop(folder)
        return stage

    def _drop(self, folder: Path) -> None:
        shutil.rmtree(folder / "machine", ignore_errors=True)
        (folder / "dropping.json").unlink(missing_ok=True)

    def remove(self, marker: uuid.UUID) -> bool:
        folder = self._folder(marker)
        there = folder.exists()
        if there:  # so that nothing half gone is taken for a place
            folder.rename(folder.with_suffix(".gone"))
        shutil.rmtree(folder.with_suffix(".gone"), ignore_errors=True)
        shutil.rmtree(folder.with_suffix(".new"), ignore_errors=True)
        return there

    def adopt(self, reference: str, marker: uuid.UUID) -> Place:
        raise Unsupported("the shed takes nothing over")

    def close(self) -> None:
        pass

    def _folder(self, marker: uuid.UUID) -> Path:
        return self._root / str(marker)

    def _staged(self, folder: Path) -> Stage | None:
        held = [held_local(_local(folder, n)) for n in json.loads((folder / "place.json").read_text())["disks"]]
        points = {(state.machine, state.sequence) for state, _reason in held if state and state.state == "staged"}
        if len(points) != 1 or not all(state and state.state == "staged" for state, _reason in held):
            return None
        [(machine, sequence)] = points
        guard = "" if any(reason for _state, reason in held) else "intact"
        return Stage(machine, sequence, guard, ref={"folder": str(folder)})


def _local(folder: Path, number: int) -> LocalDisk:
    return LocalDisk(folder / f"disk{number}.raw", folder / "known" / str(number))


def _write(path: Path, text: str) -> None:
    path.with_suffix(".part").write_text(text)
    path.with_suffix(".part").rename(path)


def _die(step: str) -> None:
    """Where the tests want this process to be killed."""
    if os.environ.get("SHED_DIES_AT") == step:
        os.kill(os.getpid(), signal.SIGKILL)
