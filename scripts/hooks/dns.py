#!/usr/bin/env python3
"""A DNS server answers a question over TCP, with the right address if one is given.

    - name: names resolve
      hook: exec
      settings:
        path: scripts/hooks/dns.py
        ports: [53]
        arguments: [--name, shop.example.com, --expect, 192.0.2.7]

Ports are forwarded for TCP; every DNS server answers there, too (RFC 7766). Format of messages: RFC 1035, 4.1.
"""

from __future__ import annotations

import argparse
import ipaddress
import secrets
import socket
import struct
from typing import BinaryIO

from document import Document, failed, passed

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}
NAMES = {number: name for name, number in TYPES.items()}
CODES = {1: "format error", 2: "server failure", 3: "no such name", 4: "not implemented", 5: "refused"}
INTERNET = 1
RECURSION_DESIRED = 0x0100


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks a DNS server; see the top of this file.")
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--name", required=True)
    parser.add_argument("--type", default="A", choices=sorted(TYPES))
    parser.add_argument("--expect", help="one of the answers: an address, a name")
    arguments = parser.parse_args()
    document = Document()
    host, port = document.endpoint(arguments.port)
    try:
        answers = ask(host, port, arguments.name, TYPES[arguments.type], document.seconds)
    except OSError as error:
        failed(f"{host}:{port}: {error}")
    except (ValueError, IndexError, struct.error) as error:
        failed(f"{host}:{port}: not an answer of DNS: {error}")
    shown = ", ".join(f"{kind} {value}" for kind, value in answers) or "nothing"
    wanted = [value for kind, value in answers if kind == arguments.type]
    if not wanted or (arguments.expect is not None and arguments.expect.rstrip(".").lower() not in wanted):
        failed(f"{arguments.name} is {shown}" + (f" instead of {arguments.expect}" if arguments.expect else ""))
    passed(f"{arguments.name} is {shown}")


def ask(host: str, port: int, name: str, kind: int, seconds: float) -> list[tuple[str, str]]:
    """Type and value of each answer."""
    number = secrets.randbelow(65536)
    labels = [label.encode("idna") for label in name.rstrip(".").split(".")]
    question = b"".join(bytes([len(label)]) + label for label in labels) + b"\0" + struct.pack("!HH", kind, INTERNET)
    message = struct.pack("!HHHHHH", number, RECURSION_DESIRED, 1, 0, 0, 0) + question
    with socket.create_connection((host, port), seconds) as connection:
        connection.sendall(struct.pack("!H", len(message)) + message)
        stream = connection.makefile("rb")
        (length,) = struct.unpack("!H", exactly(stream, 2))
        answer = exactly(stream, length)
    same, flags, questions, count = struct.unpack("!HHHH", answer[:8])
    if same != number or not flags & 0x8000:
        raise ValueError("it belongs to another question")
    if flags & 15:
        failed(f"{name}: {CODES.get(flags & 15, f'code {flags & 15}')}")
    at = 12
    for _ in range(questions):
        at = read_name(answer, at)[1] + 4
    answers = []
    for _ in range(count):
        at = read_name(answer, at)[1]
        kind, _class, _ttl, length = struct.unpack("!HHIH", answer[at : at + 10])
        at += 10
        answers.append((NAMES.get(kind, str(kind)), value(answer, at, kind, length)))
        at += length
    return answers


def exactly(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise ValueError(f"the connection was closed after {len(data)} of {length} bytes")
    return data


def value(message: bytes, at: int, kind: int, length: int) -> str:
    data = message[at : at + length]
    if kind in (TYPES["A"], TYPES["AAAA"]):
        return str(ipaddress.ip_address(data))
    if kind in (TYPES["NS"], TYPES["CNAME"], TYPES["PTR"], TYPES["SOA"]):
        return read_name(message, at)[0]
    if kind == TYPES["MX"]:
        return read_name(message, at + 2)[0]
    if kind == TYPES["TXT"]:
        return data[1 : 1 + data[0]].decode("utf-8", "replace").lower()
    return data.hex()


def read_name(message: bytes, at: int) -> tuple[str, int]:
    """A name and where it ends; pointers lead back only (RFC 1035, 4.1.4)."""
    labels: list[str] = []
    end = 0
    limit = len(message)
    while message[at]:
        if message[at] >= 0xC0:
            end = end or at + 2
            target = int.from_bytes(message[at : at + 2], "big") & 0x3FFF
            if target >= limit:
                raise ValueError("a name that points forward")
            at = limit = target
        else:
            labels.append(message[at + 1 : at + 1 + message[at]].decode("ascii", "replace").lower())
            at += 1 + message[at]
    return ".".join(labels), end or at + 1


if __name__ == "__main__":
    main()
