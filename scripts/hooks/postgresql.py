#!/usr/bin/env python3
"""PostgreSQL takes connections, and answers a query if one is given.

    - name: orders are there
      hook: exec
      settings:
        path: scripts/hooks/postgresql.py
        ports: [5432]
        arguments: [--user, report, --database, shop, --query, "select count(*) > 0 from orders", --expect, t]
        environment: [PGPASSWORD]        # or PGPASSFILE

    --hook exec:5432@scripts/hooks/postgresql.py

A query needs the client psql. Without one a connection is begun as far as the server asks for a password or refuses the
user: then it is up (as pg_isready sees it).
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import struct
import subprocess

from document import Document, failed, passed

PROTOCOL = 196608
"""3.0: https://www.postgresql.org/docs/current/protocol-message-formats.html, StartupMessage."""
AUTHENTICATION = {0: "lets in without a password", 3: "asks for a password", 5: "asks for a password (MD5)",
                  7: "asks for GSSAPI", 9: "asks for SSPI", 10: "asks for a password (SCRAM)"}  # fmt: skip
NO_ENTRY = "28"
"""SQLSTATE class of refused logins (errcodes, appendix A): the server is up, and said no to this user."""
NO_DATABASE = "3D000"


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks PostgreSQL; see the top of this file.")
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument("--user", default="postgres")
    parser.add_argument("--database", default="postgres")
    parser.add_argument("--query", default="")
    parser.add_argument("--expect", help="the output of the query")
    arguments = parser.parse_args()
    document = Document()
    host, port = document.endpoint(arguments.port)
    if arguments.query:
        query(arguments, host, port, document.seconds)
    try:
        handshake(arguments, host, port, document.seconds)
    except OSError as error:
        failed(f"{host}:{port}: {error}")


def query(arguments: argparse.Namespace, host: str, port: int, seconds: float) -> None:
    psql = shutil.which("psql")
    if psql is None:
        failed("--query needs psql on this host: apt-get install postgresql-client")
    command = [psql, "-X", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", str(port),
               "-U", arguments.user, "-d", arguments.database, "-c", arguments.query]  # fmt: skip
    environ = {**os.environ, "PGCONNECT_TIMEOUT": str(max(2, int(seconds)))}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, env=environ)
    except subprocess.TimeoutExpired:
        failed(f"no answer to the query within {seconds:.0f} s")
    output = done.stdout.strip()
    if done.returncode != 0:
        failed((done.stderr.strip() or f"psql ended with {done.returncode}").replace("\n", " "))
    if arguments.expect is not None and output != arguments.expect:
        failed(f"the query gives {output!r} instead of {arguments.expect!r}")
    passed(f"the query gives {output!r}")


def handshake(arguments: argparse.Namespace, host: str, port: int, seconds: float) -> None:
    words = ["user", arguments.user, "database", arguments.database]
    body = struct.pack("!i", PROTOCOL) + b"".join(word.encode() + b"\0" for word in words) + b"\0"
    with socket.create_connection((host, port), seconds) as connection:
        connection.sendall(struct.pack("!i", len(body) + 4) + body)
        stream = connection.makefile("rb")
        kind = stream.read(1)
        head = stream.read(4)
        if len(head) < 4 or kind not in b"RE":
            failed(f"{host}:{port} is no PostgreSQL server, or closes the connection (it says {kind + head!r})")
        (length,) = struct.unpack("!i", head)
        answer = stream.read(max(0, min(length, 65536) - 4))
        connection.sendall(b"X" + struct.pack("!i", 4))
    if kind == b"R":
        (code,) = struct.unpack("!i", answer[:4])
        passed(f"PostgreSQL {AUTHENTICATION.get(code, f'asks for authentication {code}')} for user {arguments.user}")
    fields = {field[:1]: field[1:].decode("utf-8", "replace") for field in answer.split(b"\0") if field}
    state, message = fields.get(b"C", ""), fields.get(b"M", "")
    if state.startswith(NO_ENTRY) or state == NO_DATABASE:
        passed(f"PostgreSQL is up and says: {message}")
    failed(f"PostgreSQL says: {message} ({state})")


if __name__ == "__main__":
    main()
