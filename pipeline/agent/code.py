"""The pairing code: one line of text that makes a program somewhere else the agent of one controller."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from blake3 import blake3

from manifests.mail import Public, is_agent
from pipeline.errors import UsageError

_MARK = "failback-agent-1:"
_CHECK = 6


@dataclass(frozen=True, slots=True)
class StoreLogin:
    """Credentials of the bucket for an agent that has none of its own. Short-lived ones have a `token`."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)

    @classmethod
    def of_profile(cls, profile: str) -> Self:
        """Credentials that this host has: of a profile of ~/.aws, or `environment`: those that a command would use."""
        from pipeline.store.credentials import find_credentials

        found = find_credentials("" if profile == "environment" else profile)
        if found.provider is None:
            return cls(found.access_key, found.secret_key, found.token)
        keys = found.provider()
        return cls(keys["access_key_id"], keys["secret_access_key"], keys.get("token") or "")

    def environ(self) -> dict[str, str]:
        """As the store takes them."""
        found = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return found | ({"AWS_SESSION_TOKEN": self.token} if self.token else {})


@dataclass(frozen=True, slots=True)
class PairingCode:
    """Whoever has it may answer as this agent, once, until it expires; later only who answered is the agent."""

    agent: str
    address: str
    """Of the repository, without a `ca`: the certificate comes along."""
    repository: str
    """Id of the repository."""
    controller: Public
    secret: bytes = field(repr=False)
    expires: str
    """RFC 3339, by the store's clock. For people and for an early refusal; it is the controller that refuses."""
    login: StoreLogin | None = None
    ca: str = ""
    """PEM of the authority that signed the store's certificate."""

    def encode(self) -> str:
        """One line, without white space."""
        document: dict[str, Any] = {
            "agent": self.agent,
            "address": self.address,
            "repository": self.repository,
            "sign": self.controller.sign.hex(),
            "box": self.controller.box.hex(),
            "secret": self.secret.hex(),
            "expires": self.expires,
            "login": asdict(self.login) if self.login else None,
            "ca": self.ca,
        }
        data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        return _MARK + base64.urlsafe_b64encode(blake3(data).digest(_CHECK) + data).decode("ascii").rstrip("=")

    @classmethod
    def decode(cls, text: str) -> PairingCode:
        """White space anywhere in it does not matter. Raises UsageError, which never repeats the code."""
        line = "".join(text.split())
        if not line.startswith(_MARK):
            raise UsageError("this is not a pairing code of this version", remedy=_NEW)
        coded = line.removeprefix(_MARK)
        try:
            data = base64.b64decode(coded + "=" * (-len(coded) % 4), b"-_", validate=True)
            check, data = data[:_CHECK], data[_CHECK:]
            if blake3(data).digest(_CHECK) != check:
                raise ValueError("a letter is wrong, or a part is missing")
            found = json.loads(data)
            login = StoreLogin(**found["login"]) if found["login"] else None
            public = Public(bytes.fromhex(found["sign"]), bytes.fromhex(found["box"]))
            texts = {name: str(found[name]) for name in ("agent", "address", "repository", "expires", "ca")}
            code = cls(controller=public, secret=bytes.fromhex(found["secret"]), login=login, **texts)
            if not is_agent(code.agent) or {len(public.sign), len(public.box), len(code.secret)} != {32}:
                raise ValueError("it names no agent, or its keys have a wrong length")
        except (ValueError, KeyError, TypeError, binascii.Error) as error:
            raise UsageError(f"the pairing code is damaged: {error}", remedy=_NEW) from None
        return code


_NEW = "copy it again as one line; `failback agent pair` makes another"
