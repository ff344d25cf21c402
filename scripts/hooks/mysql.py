#!/usr/bin/env python3
"""MySQL or MariaDB takes connections, and answers a query if one is given.

    - name: shop database
      hook: exec
      settings:
        path: scripts/hooks/mysql.py
        ports: [3306]
        arguments: [--user, report, --query, "select count(*) from shop.orders", --expect, "42"]
        environment: [MYSQL_PWD]

    --hook exec:3306@scripts/hooks/mysql.py

A query needs the client `mariadb` or `mysql`. Without one a login is tried without a password, to its end (a server
blocks hosts that break off too often); that the server refuses it shows that it is up.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import struct
import subprocess
from typing import BinaryIO

from document import Document, failed, passed

# https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html
OK, ERROR, SWITCH, VERSION_10 = 0x00, 0xFF, 0xFE, 0x0A
PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH = 0x200, 0x8000, 0x80000
UTF8 = 33
MAX_PACKET = 1 << 24
MAX_ANSWER = 1 << 16
"""A server says less than this before a login; what says more is something else."""
REFUSED = (1044, 1045, 1130, 1251, 1698, 3118, 3159)
"""Errors that refuse a login: access denied, host not allowed, wrong plug-in, locked, only over TLS."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks MySQL and MariaDB; see the top of this file.")
    parser.add_argument("--port", type=int, default=3306)
    parser.add_argument("--user", default="failback")
    parser.add_argument("--query", default="")
    parser.add_argument("--expect", help="the output of the query")
    arguments = parser.parse_args()
    document = Document()
    host, port = document.endpoint(arguments.port)
    if arguments.query:
        query(arguments, host, port, document.seconds)
    try:
        handshake(arguments.user, host, port, document.seconds)
    except OSError as error:
        failed(f"{host}:{port}: {error}")


def query(arguments: argparse.Namespace, host: str, port: int, seconds: float) -> None:
    client = shutil.which("mariadb") or shutil.which("mysql")
    if client is None:
        failed("--query needs a client on this host: apt-get install mariadb-client")
    command = [client, "--no-defaults", "--protocol=tcp", f"--host={host}", f"--port={port}",
               f"--user={arguments.user}", f"--connect-timeout={max(1, int(seconds))}", "--batch",
               "--skip-column-names", f"--execute={arguments.query}"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        failed(f"no answer to the query within {seconds:.0f} s")
    output = done.stdout.strip()
    if done.returncode != 0:
        failed((done.stderr.strip() or f"{client} ended with {done.returncode}").replace("\n", " "))
    if arguments.expect is not None and output != arguments.expect:
        failed(f"the query gives {output!r} instead of {arguments.expect!r}")
    passed(f"the query gives {output!r}")


def handshake(user: str, host: str, port: int, seconds: float) -> None:
    with socket.create_connection((host, port), seconds) as connection:
        stream = connection.makefile("rb")
        number, greeting = packet(stream, f"{host}:{port}")
        if greeting[:1] == bytes([ERROR]):
            refused("", greeting)
        if greeting[:1] != bytes([VERSION_10]):
            failed(f"{host}:{port} is no MySQL server (it says {greeting[:40]!r})")
        # MariaDB puts 5.5.5- before its own, for old replicas.
        version = greeting[1:].partition(b"\0")[0].decode("utf-8", "replace").removeprefix("5.5.5-")
        flags = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH
        login = struct.pack("<IIB23x", flags, MAX_PACKET, UTF8) + user.encode() + b"\0\0mysql_native_password\0"
        send(connection, number + 1, login)
        number, answer = packet(stream, f"{host}:{port}")
        if answer[:1] == bytes([SWITCH]):
            send(connection, number + 1, b"")
            number, answer = packet(stream, f"{host}:{port}")
    if answer[:1] == bytes([OK]):
        passed(f"MySQL {version} lets {user} in without a password")
    if answer[:1] == bytes([ERROR]):
        refused(version, answer)
    passed(f"MySQL {version} answers")


def packet(stream: BinaryIO, where: str) -> tuple[int, bytes]:
    """Sequence number and content."""
    head = stream.read(4)
    length = int.from_bytes(head[:3], "little")
    if len(head) < 4 or length > MAX_ANSWER:
        failed(f"{where} is no MySQL server, or closes the connection (it says {head!r})")
    return head[3], stream.read(length)


def send(connection: socket.socket, number: int, content: bytes) -> None:
    connection.sendall(len(content).to_bytes(3, "little") + bytes([number & 255]) + content)


def refused(version: str, answer: bytes) -> None:
    code = int.from_bytes(answer[1:3], "little")
    text = answer[3:].decode("utf-8", "replace")
    text = text[6:] if text.startswith("#") else text
    if code in REFUSED:
        passed(f"MySQL {version} is up and says: {text}".replace("  ", " "))
    failed(f"MySQL {version} says: {text} ({code})".replace("  ", " "))


if __name__ == "__main__":
    main()
