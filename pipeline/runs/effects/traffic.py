"""The traffic gate: the plan's steps that let users in, each by name `GROUP/STEP`."""

from __future__ import annotations

from dataclasses import replace

from pipeline.errors import TargetError
from pipeline.plans.agree import traffic_of
from pipeline.plans.model import Group, TrafficStep
from pipeline.plans.traffic import Way
from pipeline.runs.effects.job import ForeignChange, Job, Result
from pipeline.target import Build, Importer


def open_step(job: Job) -> Result:
    group, step = _step(job)
    for machine in group.machines:
        if machine not in job.state.stay:
            epoch = replace(job, subject=machine).epoch()
            if epoch.side != "home-provisional":
                raise ForeignChange(f"{machine} is {epoch.side}: no users are let in to it", remedy="look who moved it")
            job.check_off(machine)
    job.confirm()
    return {"did": traffic_of(step).open(_way(job, group))}


def close_step(job: Job) -> Result:
    group, step = _step(job)
    for machine in group.machines:  # another run's users are not locked out
        if machine not in job.state.stay:
            replace(job, subject=machine).epoch()
    job.confirm()
    return {"did": traffic_of(step).close(_way(job, group))}


def _step(job: Job) -> tuple[Group, TrafficStep]:
    name, _, wanted = job.subject.partition("/")
    group = next(g for g in job.plan.groups if g.name == name)
    return group, next(s for s in group.traffic if s.name == wanted)


def _way(job: Job, group: Group) -> Way:
    machines = [m for m in group.machines if m not in job.state.stay]
    epochs = [str(job.state.effect(f"own/{m}").result.get("epoch", "")) for m in machines]
    environment = {
        "FAILBACK_RUN": job.run,
        "FAILBACK_GROUP": group.name,
        "FAILBACK_MACHINES": "\n".join(machines),
        "FAILBACK_EPOCH": "\n".join(epochs),
    }

    def at_home(machine: str) -> tuple[Importer, Build]:
        site = job.ground.importer(job.plan.target)
        with job.site(machine) as found:
            place = found.find()
        if place is None or place.build is None:
            raise TargetError(f"{machine} is not at {job.plan.target}", remedy="look whether somebody took it away")
        return site, place.build

    return Way(group.name, job.run, job.control, at_home, environment)
