"""Home: the disks, the machine on them, and whether it works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from manifests.names import encode_machine
from pipeline.catalogue import Point
from pipeline.collect.record import hold
from pipeline.errors import FailbackError, RunRefused, TargetError, Unsupported, VerifyError
from pipeline.finding import Finding
from pipeline.home.arrival import Verify
from pipeline.home.boot import switch_on
from pipeline.home.bring import bring_home
from pipeline.home.clean import holder_of
from pipeline.home.control import Controller
from pipeline.home.ready import check_ready, not_ready
from pipeline.home.rehearse import rehearse as rehearse_one
from pipeline.home.settle import drop, settled
from pipeline.home.site import Site
from pipeline.home.stage import staged
from pipeline.laps import Laps
from pipeline.plans.agree import traffic_findings
from pipeline.runs.decide import looked_since
from pipeline.runs.effects.job import ClockSuspect, ForeignChange, Job, Result
from pipeline.runs.effects.reading import export
from pipeline.runs.effects.sides import check_free
from pipeline.runs.ownership import current
from pipeline.target import Build, Importer, Intent
from pipeline.verify.checks import Check
from pipeline.verify.hooks.console import FIRMWARE
from pipeline.verify.person import Question, Said
from pipeline.verify.results import Results
from pipeline.verify.runner import run_checks
from pipeline.verify.short import parse_hook
from pipeline.verify.subject import BuildSubject
from pipeline.wanted import Wanted

GUEST_SECONDS = 20.0
GUEST_OFF = 120.0
"""Seconds by which a guest's clock may differ from the store's: Kerberos takes 300."""
DEFAULT_CHECK = "console"


def preflight(job: Job) -> Result:
    """What can be known before anything moves, at both sides."""
    if (epoch := current(job.repository, job.subject)).run != job.run:
        check_free(epoch)
    gone = job.subject in job.state.vouched  # nothing is asked of a takeover side that was given up
    found = [] if gone else job.source.preflight(job.subject, job.settings)
    point = job.newest()
    if point is not None:
        with job.site() as site:
            found += _ready(job, site, point, job.wanted(point))
    errors = [f for f in found if f.severity == "error"]
    if errors:
        raise RunRefused(f"{errors[0].subject}: {errors[0].message}", remedy=errors[0].remedy)
    return {"findings": [f"{f.severity}: {f.subject}: {f.message}" for f in found if f.severity != "note"]}


def stage(job: Job) -> Result:
    """The disks equal the newest point, as it is now."""
    if job.state.purpose == "rehearsal":  # not below a machine that comes home, or that is there
        check_free(current(job.repository, job.subject))
    point = job.newest() or job.point()
    return _staged(job, point)


def catch_up(job: Job) -> Result:
    """What the machine wrote since is exported, and its disks at home equal the newest point once more."""
    machine, _, number = job.subject.partition("/")
    job = replace(job, subject=machine)
    if job.source.able(machine, job.settings).reads:
        export(job, f"catch-up-{number}")
    return stage(job)


def refresh(job: Job) -> Result:
    """The disks equal the set's point."""
    return _staged(job, job.point())


def rehearse(job: Job) -> Result:
    """The whole group, by waves, each machine on a layer that is thrown away and cut off from every network; those of
    earlier waves stay up until the last is known."""
    group = next(g for g in job.plan.groups if g.name == job.subject)
    known, verdicts = threading.Event(), dict[str, dict[str, Any]]()
    failed: list[FailbackError] = []
    ready = {machine: threading.Event() for machine in group.machines}

    def one(machine: str) -> None:
        own = job.with_control(_Child(job.control, machine))
        try:
            _rehearsed(own, machine, verdicts, ready[machine], known)
        except FailbackError as error:
            failed.append(error)
        finally:
            ready[machine].set()

    with ThreadPoolExecutor(len(group.machines)) as pool:
        try:
            for wave in group.waves:
                for machine in wave:
                    pool.submit(one, machine)
                for machine in wave:
                    while not ready[machine].wait(0.5):
                        job.control.check()
                if failed or not all(verdicts.get(m, {}).get("verified") for m in wave):
                    break
        finally:
            known.set()
    if failed:
        raise failed[0]
    wrong = [f"{machine}: {_why(verdict)}" for machine, verdict in verdicts.items() if not verdict["verified"]]
    if wrong:
        raise VerifyError(f"the rehearsal of {group.name} failed: {'; '.join(wrong)}", remedy="nothing is left running")
    return {"machines": verdicts}


def boot(job: Job) -> Result:
    """Built on a layer of the stage, and switched on: under our own home-provisional epoch alone.

    Whoever goes back meanwhile throws layer and machine away, and another conductor may do so while this one sleeps in
    the midst of building them. So it is looked once more between the two, and what is started is what was built here.
    """
    epoch = job.epoch()
    if epoch.side != "home-provisional":
        raise RunRefused(f"{job.subject} is {epoch.side}: it may not start at home", remedy="look who moved it")
    point = job.point()
    wanted, laps = job.wanted(point), Laps()
    with job.site() as site:
        job.confirm()
        laps.lap("confirm")
        build = bring_home(site, point, wanted, boot=False, laps=laps).build
        assert build is not None  # the target has machines: a crew is not made else
        job.confirm()
        job.check_off()
        laps.lap("confirm")
        with site.held(f"run {job.run} starts {job.subject}"):
            switch_on(site, build, wanted)
    laps.lap("boot")
    return {"name": build.name, "point": point.manifest.label, "steps": laps.steps}


def verify(job: Job) -> Result:
    """Its checks. What is not found right fails the effect; the machine stays on for people to look at."""
    first = job.state.effect(f"verify/{job.subject}").attempts <= 1
    results = _checked(job, job.subject, fresh=first)
    if not results.verified:
        raise VerifyError(f"{job.subject} is not verified: {results.why}", remedy=_seen(results))
    return results.as_json()


def clock(job: Job) -> Result:
    """The guest's own time, before users come in: one that is off makes tickets, certificates and records wrong."""
    with job.site() as site:
        if "command" not in site.abilities.guest:
            return {"unknown": f"{site.target} runs no commands in the guest"}
        build = _running(site, job.subject)
        try:
            said = site.importer.command(build, ["date", "+%s"], seconds=GUEST_SECONDS)
            guest = int(said.output.split()[0])
        except (Unsupported, TargetError, ValueError, IndexError) as error:
            return {"unknown": str(error)}
    off = guest - job.now().timestamp()
    if abs(off) > GUEST_OFF and "clock-suspect" not in job.state.accepted:
        raise ClockSuspect(
            f"the clock of {job.subject} is {off:+.0f} s off the store's", remedy="set it in the guest (NTP, time zone)"
        )
    return {"off": round(off)}


def green(job: Job) -> Result:
    """One look at a whole group while its gate is open. That something is wrong is what it found, not a failure."""
    name = job.subject.partition("/")[0]
    group = next(g for g in job.plan.groups if g.name == name)
    wrong = []
    for machine in group.machines:
        if machine in job.state.stay:
            continue
        try:
            results = _checked(job, machine, fresh=False)
            wrong += [] if results.verified else [f"{machine}: {results.why}"]
        except FailbackError as error:
            wrong.append(f"{machine}: {error.message}")
    return {"green": not wrong, "why": "; ".join(wrong)}


def halt(job: Job) -> Result:
    """Home is off, and what it would start from is gone: nobody who comes late can start it."""
    if who := job.state.home_vouched.get(job.subject):
        return {"off": True, "override": who}
    job.epoch()  # another run's machine is not switched off
    with job.site() as site, site.held(f"run {job.run} goes back"):
        place = site.find()
        if place is None or place.build is None:
            return {"off": True, "seen": "there is no machine at home"}
        job.confirm()
        if place.state == "running":
            # Hard: what a guest would still write goes with the layer, and users wait for the other side.
            site.importer.stop(place.build, seconds=0)
        seen = site.importer.observe(place.build)
        if seen.power != "off":
            raise TargetError(f"{job.subject} is {seen.power} at home", remedy="switch it off there, then retry")
        place = site.find()
        if place is not None and place.build is not None:
            drop(site, place, place.build)
        return {"off": True, "seen": f"{site.target} says it is off, and its layer is gone"}


def _ready(job: Job, site: Site, point: Point, wanted: Wanted) -> list[Finding]:
    """What stops nobody. Raises NotReady: better before the takeover side was touched than after."""
    found = check_ready(site, point, wanted, Intent("production", boots=True))
    gates = traffic_findings(job.plan, job.subject, site.importer, wanted)
    if errors := [f for f in gates if f.severity == "error"]:
        raise not_ready(site, errors)
    return [*found, *gates]


def _staged(job: Job, point: Point) -> Result:
    wanted, laps = job.wanted(point), Laps()
    with job.site() as site:
        _ready(job, site, point, wanted)
        laps.lap("preflight")
        hold(job.repository, point, holder=holder_of(site), reason=f"on disks at {site.target}, by run {job.run}")
        with site.held(f"run {job.run} stages {point.manifest.label}"):
            place = settled(site, point, reuse=False)
            laps.lap("find")
            found = staged(site, place, point, wanted, instant=False)
            laps.lap("stage", found.steps)
    written = sum(disk.counters.written for disk in found.disks)
    return {
        "point": point.manifest.label,
        "sequence": point.manifest.sequence,
        "taken": point.manifest.started,
        "place": str(site.marker),
        "written": written,
        "disks": [{"number": d.number, "mode": d.mode, "reason": d.reason, "proof": d.proof} for d in found.disks],
        "steps": laps.steps,
    }


def _rehearsed(
    job: Job, machine: str, verdicts: dict[str, dict[str, Any]], ready: threading.Event, known: threading.Event
) -> None:
    point = job.point(machine)
    if job.state.purpose == "rehearsal":
        check_free(current(job.repository, machine))

    def look(importer: Importer, build: Build, fresh: bool) -> Results:
        subject = BuildSubject(
            importer, build, job.wanted(point).hardware, _artifacts(job, "rehearsal", machine),
            booted=time.monotonic(), fresh=fresh, people=_people(job),
        )  # fmt: skip
        results = run_checks(_checks_of(job, machine), subject, job.control)
        _picture(importer, build, _artifacts(job, "rehearsal", machine))
        verdicts[machine] = results.as_json()
        ready.set()
        if results.verified:
            while not known.wait(0.5):
                job.control.check()
        return results

    verified: Verify = look
    with job.site(machine) as site:
        rehearse_one(site, point, job.wanted(point), verify=verified)


def _checked(job: Job, machine: str, *, fresh: bool) -> Results:
    """`fresh`: it was switched on just before. All looks at it keep what they saw in one folder: a later one has to
    know what its firmware showed. Another host does not know that, and begins anew, but while the gate is open."""
    artifacts = _artifacts(job, "cutover", machine)
    fresh = fresh or (job.verb == "verify" and not (artifacts / FIRMWARE).is_file())
    with job.site(machine) as site:
        build = _running(site, machine)
        subject = BuildSubject(
            site.importer,
            build,
            job.wanted(job.point(machine)).hardware,
            artifacts,
            booted=time.monotonic(),
            fresh=fresh,
            people=_people(job),
        )
        try:
            return run_checks(_checks_of(job, machine), subject, job.control)
        finally:
            _picture(site.importer, build, artifacts)


def _people(job: Job) -> Callable[[Question], Said | None]:
    """Who may answer `failback run answer`, from anywhere."""
    told = set[str]()

    def asked(question: Question) -> Said | None:
        machine = question.machine
        if machine not in told:
            told.add(machine)
            shown = f", picture {question.picture}" if question.picture else ""
            job.control.tell(f"{question.text} `failback run answer {job.run} {machine} yes|no --by NAME`{shown}")
        word, since = job.state.words.get(machine), looked_since(job.state, job.plan, machine)
        if word is None or since is None or word.number <= since:
            return _before(job, question) if job.verb == "green" else None
        return Said(word.yes, word.by, word.time, f"entry {word.number} of the run", word.reason)

    return asked


def _before(job: Job, question: Question) -> Said | None:
    """While the gate is open nobody is asked again what was said when the machine was verified."""
    verified = job.state.effect(f"verify/{question.machine}")
    for check in verified.result.get("checks", []):
        if (check["name"], check["status"]) == (question.check, "passed") and verified.ended is not None:
            return Said(True, "the operator", verified.ended, "when it was verified", check["seen"])
    return None


def _running(site: Site, machine: str) -> Build:
    place = site.find()
    if place is None or place.build is None or place.state not in ("running", "kept"):
        raise ForeignChange(
            f"{machine} does not run at {site.target}, where it was started",
            remedy="somebody switched it off, or its guest did: look there",
        )
    return place.build


def _checks_of(job: Job, machine: str) -> Sequence[Check]:
    return job.plan.machines[machine].checks or (parse_hook(DEFAULT_CHECK),)


def _artifacts(job: Job, step: str, machine: str = "") -> Path:
    return job.ground.state / "runs" / job.run / encode_machine(machine or job.subject) / step


def _picture(importer: Importer, build: Build, folder: Path) -> None:
    try:
        png = importer.picture(build)
    except TargetError:
        return  # what the checks found counts
    if png is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "picture.png").write_bytes(png)


def _why(verdict: dict[str, Any]) -> str:
    """What a rehearsed machine lacks, with what its checks saw."""
    seen = [f"{c['seen']}" for c in verdict["checks"] if c["status"] not in ("passed", "skipped") and c["seen"]]
    return f"{verdict['why']}" + (f" ({'; '.join(seen)})" if seen else "")


def _seen(results: Results) -> str:
    return "; ".join(f"{c.name}: {c.seen}" for c in results.checks if c.status not in ("passed", "skipped")) or "look"


class _Child(Controller):
    """Ends when its parent does. Says of which machine it speaks."""

    def __init__(self, parent: Controller, machine: str) -> None:
        super().__init__(watch=parent.watch, tell=lambda text: parent.tell(f"{machine}: {text}"))
        self._parent = parent

    def check(self) -> None:
        if not self._shields:
            self._parent.check()
        super().check()
