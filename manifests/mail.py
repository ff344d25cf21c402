"""A document of a mailbox: sealed for one reader, signed by one writer, bound to its place (FORMAT.md, section 16)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from manifests.errors import CorruptObject, Forged, NewerFormat
from manifests.sealing import SALT_SIZE, fresh_salt

PREFIX = "mailbox/"
MAX_MAIL = 4 << 20
_AGENT = re.compile("[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?-[0-9a-f]{16}")
_SIGN = b"failback 2026 mailbox document v1"
_KEY = "failback 2026 mailbox v1"
_NO_NONCE = bytes(12)
_UNKNOWN = bytes(32)
"""In place of what two key pairs have in common, as long as one of them is not known: the answer to a pairing code."""
_FIELDS = {"format", "repository", "agent", "key", "salt", "sealed", "signature"}


@dataclass(frozen=True, slots=True)
class Pair:
    """The keys of one side: Ed25519 to sign, X25519 to seal."""

    sign: bytes = field(repr=False)
    box: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Pair:
        return cls(Ed25519PrivateKey.generate().private_bytes_raw(), X25519PrivateKey.generate().private_bytes_raw())

    @property
    def public(self) -> Public:
        sign = Ed25519PrivateKey.from_private_bytes(self.sign).public_key().public_bytes_raw()
        return Public(sign, X25519PrivateKey.from_private_bytes(self.box).public_key().public_bytes_raw())


@dataclass(frozen=True, slots=True)
class Public:
    """What the other side knows of these keys."""

    sign: bytes
    box: bytes

    @property
    def fingerprint(self) -> str:
        """For people to compare: 32 digits in groups of four."""
        digits = blake3(self.sign + self.box, derive_key_context="failback 2026 mailbox fingerprint v1").hexdigest(16)
        return " ".join(digits[i : i + 4] for i in range(0, 32, 4))


@dataclass(frozen=True, slots=True)
class Channel:
    """What one side needs to write to the other, and to read what that one writes. `theirs` None: not known yet."""

    repository: str
    """Id of the repository, 32 hexadecimal digits."""
    agent: str
    secret: bytes = field(repr=False)
    """32 bytes that only the two sides have: of the pairing code."""
    mine: Pair
    theirs: Public | None = None

    def write(self, key: str, body: dict[str, Any], *, known: bool = True) -> bytes:
        """The document for `key`. Not `known`: the other side does not know these keys yet."""
        plain = _canonical(body)
        document: dict[str, Any] = {"format": 1, "repository": self.repository, "agent": self.agent, "key": key}
        salt = fresh_salt(blake3(plain).digest())
        document["salt"] = salt.hex()
        cipher = AESGCM(self._key(salt, known=known))
        sealed = cipher.encrypt(_NO_NONCE, plain, _canonical(document))
        document["sealed"] = base64.b64encode(sealed).decode("ascii")
        signature = Ed25519PrivateKey.from_private_bytes(self.mine.sign).sign(_SIGN + _canonical(document))
        document["signature"] = signature.hex()
        data = json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"
        if len(data) > MAX_MAIL:
            raise ValueError(f"a document of {len(data)} bytes is too long for a mailbox")
        return data

    def read(self, data: bytes, key: str, *, mine: bool = False) -> dict[str, Any]:
        """The body of what the other side wrote (or, with `mine`, this one) at `key`.

        Raises CorruptObject, Forged, NewerFormat.
        """
        document = self._envelope(data, key)
        signer = self.mine.public if mine else self.theirs
        if signer is None:
            raise Forged(f"{key}: nothing is known of its writer yet", remedy=_FORGED)
        return self._open(document, key, signer.sign, known=True)

    def read_answer(self, data: bytes, key: str) -> tuple[dict[str, Any], Public]:
        """(body, keys) of the answer to a pairing code: who wrote it had the code, and has the keys that it names."""
        document = self._envelope(data, key)
        body = self._decrypt(document, key, known=False)
        try:
            found = Public(_bytes(body["sign"], 32), _bytes(body["box"], 32))
        except (KeyError, ValueError, TypeError) as error:
            raise CorruptObject(f"{key} names no keys: {error}", remedy=_FORGED) from error
        _verify(document, found.sign, key)
        return body, found

    def _envelope(self, data: bytes, key: str) -> dict[str, Any]:
        try:
            if len(data) > MAX_MAIL:
                raise ValueError("it is too long")
            document = json.loads(data)
            version = document["format"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CorruptObject(f"{key} is damaged: {error}", remedy=_FORGED) from error
        if version != 1:
            raise NewerFormat(f"{key} has format {version}", remedy="upgrade failback on this side")
        texts = all(isinstance(document.get(name), str) for name in _FIELDS - {"format"})
        if set(document) != _FIELDS or not texts:
            raise CorruptObject(f"{key} is no document of a mailbox", remedy=_FORGED)
        place = (document["repository"], document["agent"], document["key"])
        if place != (self.repository, self.agent, key):
            raise Forged(f"{key} was written for another place: {place[2][:80]} of {place[1][:80]}", remedy=_FORGED)
        return dict(document)

    def _open(self, document: dict[str, Any], key: str, signer: bytes, *, known: bool) -> dict[str, Any]:
        _verify(document, signer, key)
        return self._decrypt(document, key, known=known)

    def _decrypt(self, document: dict[str, Any], key: str, *, known: bool) -> dict[str, Any]:
        head = {name: document[name] for name in ("format", "repository", "agent", "key", "salt")}
        try:
            salt = _bytes(document["salt"], SALT_SIZE)
            sealed = base64.b64decode(document["sealed"], validate=True)
            plain = AESGCM(self._key(salt, known=known)).decrypt(_NO_NONCE, sealed, _canonical(head))
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise Forged(f"{key} does not open with the keys of this pairing", remedy=_FORGED) from error
        try:
            body = json.loads(plain)
        except (ValueError, RecursionError) as error:
            raise CorruptObject(f"{key} holds no JSON: {error}", remedy=_FORGED) from error
        if not isinstance(body, dict):
            raise CorruptObject(f"{key} holds no document", remedy=_FORGED)
        return body

    def _key(self, salt: bytes, *, known: bool) -> bytes:
        """Each document has a key of its own, so the nonce may be constant."""
        shared = _UNKNOWN
        if known:
            if self.theirs is None:
                raise Forged("the keys of the other side are not known yet", remedy=_FORGED)
            private = X25519PrivateKey.from_private_bytes(self.mine.box)
            shared = private.exchange(X25519PublicKey.from_public_bytes(self.theirs.box))
        return blake3(shared + self.secret + salt, derive_key_context=_KEY).digest()


def is_agent(name: str) -> bool:
    """Whether this is an agent's id: a word of a-z, 0-9 and '-', '-', and 16 hexadecimal digits."""
    return _AGENT.fullmatch(name) is not None


def agent_prefix(agent: str) -> str:
    return f"{PREFIX}{agent}/"


def answer_key(agent: str) -> str:
    """What the agent says to its pairing code; created once."""
    return f"{agent_prefix(agent)}answer"


def bell_key(agent: str) -> str:
    """Written anew by the controller: the number of its newest order."""
    return f"{agent_prefix(agent)}bell"


def alive_key(agent: str) -> str:
    """Written anew by the agent: its sign of life."""
    return f"{agent_prefix(agent)}alive"


def clock_key(agent: str) -> str:
    """Written anew by the controller while it needs the agent."""
    return f"{agent_prefix(agent)}clock"


def order_key(agent: str, number: int) -> str:
    return f"{agent_prefix(agent)}orders/{number:010d}"


def report_key(agent: str, number: int) -> str:
    """What came of an order; created when the order is accepted or refused, then written anew by the agent."""
    return f"{agent_prefix(agent)}reports/{number:010d}"


def _verify(document: dict[str, Any], signer: bytes, key: str) -> None:
    signed = {name: value for name, value in document.items() if name != "signature"}
    try:
        signature = _bytes(document["signature"], 64)
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, _SIGN + _canonical(signed))
    except (InvalidSignature, ValueError):
        raise Forged(f"{key} was not signed by the other side of this pairing", remedy=_FORGED) from None


def _bytes(text: str, length: int) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != length:
        raise ValueError(f"{len(found)} bytes instead of {length}")
    return found


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


_FORGED = "somebody else writes to this mailbox: find out who may, and pair the agent anew"
