"""`picture`: the console's picture is kept."""

from __future__ import annotations

from typing import Any

from manifests.machine import Model
from pipeline.verify.hook import Attempt, Hook, Outcome, failed, not_applicable, passed
from pipeline.verify.hooks.image import read_picture
from pipeline.verify.subject import Subject


class PictureSettings(Model):
    not_blank: bool = False
    """Fail as long as nothing is on it."""


class PictureHook(Hook[PictureSettings]):
    """A picture proves little by itself; it is for people."""

    Settings = PictureSettings
    form = "picture or picture:not-blank"

    @classmethod
    def short(cls, rest: str) -> dict[str, Any]:
        if rest not in ("", "not-blank"):
            raise ValueError(f"{rest!r} is not known")
        return {"not_blank": rest == "not-blank"}

    def look(self, subject: Subject, attempt: Attempt) -> Outcome:
        if "picture" not in subject.abilities.console:
            return not_applicable("this platform shows no picture of consoles")
        png = subject.picture()
        if png is None:
            return failed("no picture of the console to be had")
        picture = read_picture(png)
        path = subject.save(f"{attempt.check}.png", png)
        if picture.blank and self.settings.not_blank:
            return failed(f"the console shows nothing ({picture.size})", path)
        return passed(f"{picture.size} pixels" + (", blank" if picture.blank else ""), path)
