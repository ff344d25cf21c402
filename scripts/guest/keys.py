"""Keys: the one that opens the guest's SSH service, and the one by which it is known."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pipeline.boot.command import run
from pipeline.boot.libraries import library_path, loader


def make_user_key(private: Path) -> str:
    """Write a new private key that only this user can read; returns the line for authorized_keys."""
    key = Ed25519PrivateKey.generate()
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + " failback-guest\n"


def make_host_key(private: Path, *, packages: Path) -> str:
    """Write a new host key in dropbear's own format; returns its public part, as known_hosts has it after the name."""
    program = packages / "usr/bin/dropbearkey"
    options = ("-t", "ed25519", "-f", private)
    said = run(loader(packages), "--library-path", library_path(packages), program, *options)
    (line,) = (line for line in said.splitlines() if line.startswith("ssh-ed25519 "))
    return " ".join(line.split()[:2]) + "\n"
