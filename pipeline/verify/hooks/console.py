"""`console`: the guest writes what it should to its console; failing that, the firmware's picture has gone."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from pydantic import model_validator

from manifests.machine import Model
from pipeline.verify.hook import Attempt, Hook, Outcome, failed, not_applicable, passed
from pipeline.verify.hooks.image import KEPT_SHARE, Picture, read_picture
from pipeline.verify.hooks.text import Regex, last_lines, plain, quoted, search
from pipeline.verify.retry import Retry
from pipeline.verify.subject import Subject

FIRMWARE = "firmware.png"


class ConsoleSettings(Model):
    """Without `text` and `regex` the picture is looked at even where there is a text console."""

    text: str | None = None
    regex: Regex | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ConsoleSettings:
        if self.text is not None and self.regex is not None:
            raise ValueError("give either `text` or `regex`")
        if "" in (self.text, self.regex):
            raise ValueError("what is looked for is empty")
        return self


class ConsoleHook(Hook[ConsoleSettings]):
    """Text in the serial console since the machine was switched on, without escape sequences.

    Where the platform has no text console, pictures are compared: the first that is not blank is the firmware's; passed
    when one that is not blank has lost most of it. That is weaker, and the result says that this was shown and the text
    was not looked for. The firmware's picture is kept among the artifacts, for a command that goes on where a killed
    one ended.
    """

    Settings = ConsoleSettings
    form = "console:TEXT, console:/REGEX/, or console alone (the picture is no longer the firmware's)"
    retry = Retry(interval=1.0, factor=1.0)

    def __init__(self, settings: ConsoleSettings) -> None:
        super().__init__(settings)
        self._firmware: Picture | None = None

    @classmethod
    def short(cls, rest: str) -> dict[str, Any]:
        if len(rest) > 2 and rest.startswith("/") and rest.endswith("/"):
            return {"regex": rest[1:-1]}
        return {"text": rest} if rest else {}

    def look(self, subject: Subject, attempt: Attempt) -> Outcome:
        wanted = self._pattern()
        consoles = subject.abilities.console
        if wanted is not None and "text" in consoles:
            return self._text(subject, wanted)
        if "picture" in consoles:
            note = "" if wanted is None else "; the text was not looked for: this platform has no text console"
            outcome = self._picture(subject, attempt)
            return replace(outcome, seen=outcome.seen + note)
        if "text" in consoles:
            return not_applicable("this platform shows no pictures of consoles; say what text to look for")
        return not_applicable("this platform shows neither text nor pictures of consoles")

    def _pattern(self) -> str | None:
        return re.escape(self.settings.text) if self.settings.text is not None else self.settings.regex

    def _text(self, subject: Subject, wanted: str) -> Outcome:
        text = plain(subject.observe().console)
        found = search(wanted, text)
        if found:
            begin, end = text.rfind("\n", 0, found.start()) + 1, text.find("\n", found.end())
            return passed(f"text on the serial console: {quoted(text[begin : end if end >= 0 else None].strip())}")
        last = last_lines(text)
        if last:
            return failed(f"not on the serial console; its last lines: {last}")
        return failed("the serial console is empty (a Linux guest writes to it with console=ttyS0)")

    def _picture(self, subject: Subject, attempt: Attempt) -> Outcome:
        png = subject.picture()
        if png is None:
            return failed("no picture of the console to be had")
        picture = read_picture(png)
        if self._firmware is None and not subject.fresh:
            before = subject.artifacts / FIRMWARE
            if not before.is_file():
                seen = "the machine ran before, and what its firmware showed is not known: look for a text instead"
                return Outcome("failed", seen, final=True)
            self._firmware = read_picture(before.read_bytes())
        if self._firmware is None:
            if not picture.blank:
                self._firmware = picture
                subject.save(FIRMWARE, png)
            return failed(f"first picture of the console ({picture.size}{', blank' if picture.blank else ''})")
        kept = self._firmware.kept(picture)
        if picture.blank:
            return failed(f"the console shows nothing ({picture.size})")
        if kept > KEPT_SHARE:
            path = subject.save(f"{attempt.check}.png", png)
            return failed(f"the console still shows {kept:.0%} of the first picture ({picture.size})", path)
        path = subject.save(f"{attempt.check}.png", png)
        seen = f"the picture changed: {kept:.0%} of the first one is left ({self._firmware.size}, now {picture.size})"
        return passed(seen, path)
